"""Nothing that was sent, fetched or stored is run: no pickles, no eval, no shell, no remote code.

Read from the syntax tree, so that comments and sentences may name what is forbidden.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
CALLS = {
    *("eval", "exec", "__import__", "os.system", "os.popen"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}
NUMPY_LOADS = {"np.load", "numpy.load"}
HARMLESS = ("Tokenizer", "Scheduler")
"""Of these `from_pretrained` reads JSON and text alone."""
ONLY = {
    "allow_pickle": "False",
    "trust_remote_code": "False",
    "use_safetensors": "True",
    "shell": "False",
    "accept_content": "['json']",
    "result_accept_content": "['json']",
    "task_serializer": "'json'",
    "event_serializer": "'json'",
    "result_serializer": "'json'",
}
"""Arguments and settings, and the one value that each may have."""
NEVER = {"weights_only", "custom_pipeline"}


def name_of(node: ast.expr) -> str:
    """``a.b.c``, as it is written."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def faults(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if each.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                if module.split(".")[0] in MODULES:
                    yield module
                yield from (
                    f"{module}.{each.name}"
                    for each in names
                    if f"{module}.{each.name}" in CALLS | NUMPY_LOADS
                )
            case ast.Call():
                yield from faults_of_call(node)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield from faults_of_setting(key.value, value)


def faults_of_call(call: ast.Call) -> Iterator[str]:
    name = name_of(call.func)
    given = {each.arg for each in call.keywords}
    owner, _, method = name.rpartition(".")
    if name in CALLS:
        yield name
    if name in NUMPY_LOADS and "allow_pickle" not in given:
        yield f"{name} without allow_pickle"
    may_be_pickles = method == "from_pretrained" and not owner.endswith(HARMLESS)
    if may_be_pickles and "use_safetensors" not in given:
        yield f"{name} without use_safetensors"
    for each in call.keywords:
        yield from faults_of_setting(each.arg or "", each.value)


def faults_of_setting(name: str, value: ast.expr) -> Iterator[str]:
    written = ast.unparse(value)
    if name in NEVER or ONLY.get(name, written) != written:
        yield f"{name}={written}"


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "import torch, dill", "from joblib import load", "import marshal as m"),
        *("from torch import load", "torch.load(path)", "x = eval(text)", "exec(text)"),
        *("yaml.load(file)", "os.system('ls')", "np.load(path)", "numpy.load(p, allow_pickle=x)"),
        *("np.load(path, allow_pickle=True)", "read(path, weights_only=True)"),
        *("Model.from_pretrained(folder)", "kind.from_pretrained(folder, use_safetensors=None)"),
        *("pipe(folder, trust_remote_code=True)", "pipe(folder, custom_pipeline=name)"),
        *("load(path, use_safetensors=False)", "options = {'use_safetensors': False}"),
        *("subprocess.run(line, shell=True)", "dict(task_serializer='pickle')"),
        *("{'accept_content': ['json', 'pickle']}", "{'event_serializer': 'yaml'}"),
    ],
)
def test_each_of_these_is_found(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    [
        *("model.eval()", "np.load(path, allow_pickle=False)", "'torch.load(path)'"),
        *("CLIPTokenizer.from_pretrained(folder)", "kind.from_pretrained(f, use_safetensors=True)"),
        *("{'task_serializer': 'json', 'accept_content': ['json']}", "run(line, shell=False)"),
    ],
)
def test_none_of_these_is(source: str) -> None:
    assert not list(faults(source))


def test_nothing_of_ours_does_any() -> None:
    found = {
        str(path.relative_to(ROOT)): told
        for package in ("api", "core", "worker", "migrations")
        for path in (ROOT / package).rglob("*.py")
        if (told := list(faults(path.read_text("utf-8"))))
    }
    assert found == {}
