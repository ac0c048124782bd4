# Every target makes its own virtual environment first: a machine with Python, git and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export STILLROOM_HOME ?= $(CURDIR)/var
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo serve check test faults fuzz bench screenshots fmt
.DEFAULT_GOAL := install

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Stillroom needs Python 3.11 or newer: run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --constraint constraints.txt --editable '.[worker,test,dev]'
	touch $@

demo: install
	$(BIN)/stillroom demo

serve: install
	$(BIN)/stillroom serve

check: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# two at a time, a file at once, long ones first: each torch keeps to one thread, or they stand in each other's way
test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# every fault, storms of a thousand jobs among them, and what else takes long: over an hour
faults: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -m faults

# the whole HTTP contract, a hundred examples an operation
fuzz: install
	FUZZ="--max-examples 100" $(BIN)/pytest -s tests/api/test_contract.py

bench: install
	$(BIN)/pytest -m bench tests/bench

# each view of the page in light, dark and narrow, with things to see, to docs/screenshots; needs Chromium
screenshots: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.page.screenshots

fmt: install
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
