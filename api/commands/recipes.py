"""Recipes: what a job is asked to do, as a file. Ours are in ``api/recipes``."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from api.answers import Job
from api.client import ClientError

FOLDER = Path(__file__).resolve().parents[1] / "recipes"


def names() -> list[str]:
    """Of ours."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(recipe: str) -> tuple[str, dict[str, Any]]:
    """A job's kind and spec. Raises ClientError where there is no such recipe."""
    ours = FOLDER / f"{recipe}.json"
    path = ours if recipe in names() else Path(recipe)
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        kind, spec = written["kind"], written["spec"]
    except FileNotFoundError:
        raise ClientError(
            f"There is no recipe {recipe!r}: it is neither a file nor one of {', '.join(names())}."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ClientError(f"{path} is no recipe, an object with `kind` and `spec`.") from error
    if not isinstance(kind, str) or not isinstance(spec, dict):
        raise ClientError(f"{path} is no recipe: its `kind` is a word, its `spec` an object.")
    return kind, spec


def write(job: Job) -> str:
    """The recipe that a job was made by."""
    return json.dumps({"kind": job["kind"], "spec": job["spec"]}, indent=2)


def sha256_of(job: Job) -> str:
    """Of what the job was asked to do: two jobs that share it were asked for the same."""
    canonical = json.dumps([job["kind"], job["spec"]], sort_keys=True)
    return sha256(canonical.encode()).hexdigest()


def change(spec: dict[str, Any], text: str) -> None:
    """Puts ``lora.rank=16`` into a spec; a value that is no JSON is a text."""
    path, equals, value = text.partition("=")
    if not equals:
        raise ClientError(f"--set {text}: write FIELD=VALUE, as in lora.rank=16.")
    *parents, name = path.split(".")
    for parent in parents:
        if spec.get(parent) is None:  # as `jobs spec` writes what a job did without
            spec[parent] = {}
        if not isinstance(spec[parent], dict):
            raise ClientError(f"--set {text}: {parent} has no fields.")
        spec = spec[parent]
    try:
        spec[name] = json.loads(value)
    except ValueError:
        spec[name] = value
