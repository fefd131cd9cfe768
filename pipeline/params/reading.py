"""Reads and validates documents: each fault is a line: its place, what was found, what is wanted."""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import ParamsError
from pipeline.params.row import Row
from pipeline.params.study import Study

PARAMS = Path("params.yaml")


def read_yaml(path: Path, wanted_by: str = "") -> Any:
    """Returns the YAML 1.2 document at `path`; raises ParamsError if it is missing or not YAML.

    `wanted_by` is the key of params.yaml that names the file.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if wanted_by:
            there = sorted(str(found) for found in path.parent.glob("*.yaml"))
            near = difflib.get_close_matches(str(path), there, n=3, cutoff=0.3)
            found = f"the folder has {', '.join(near or there[:8]) or 'no such file'}"
            raise ParamsError(
                f"params.yaml: {wanted_by}: {path} does not exist; {found}: correct the name or add it"
            ) from None
        raise ParamsError(f"{path}: not found: run this in the study's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not a YAML document: {error}") from None


def validate(kind: Any, document: Any, where: str) -> Any:
    """Returns `document` as `kind`; raises ParamsError with a line for each fault.

    Rows with the same fault share a line, so a fault in one YAML anchor is reported once.
    """
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        found = [_fault(fault, document) for fault in error.errors()]
    rows: dict[tuple[str, str], list[str]] = {}
    for key, message in found:
        if key[:1] == ["models"] and len(key) > 1:
            rest = key[1:]
            rows.setdefault((".".join(rest[1:]), message), []).append(rest[0])
        else:
            rows.setdefault((".".join(key), message), [])
    lines = []
    for (inner, message), names in rows.items():
        place = ".".join(part for part in (*(("models", names[0]) if names else ()), inner) if part)
        message += also_in(names)
        lines.append(f"{where}: {place}: {message}" if place else f"{where}: {message}")
    raise ParamsError("\n".join(lines)) from None


def also_in(names: Sequence[str]) -> str:
    """Returns the end of a message about the first of some rows: how many more share its fault."""
    more = len(names) - 1
    return f" (and in {more} more row{'s' if more > 1 else ''})" if more > 0 else ""


def together(judged: Iterable[Callable[[], object]]) -> None:
    """Calls each function; raises one ParamsError with the lines of all that they raised."""
    faults = []
    for judge in judged:
        try:
            judge()
        except ParamsError as error:
            faults.append(str(error))
    if faults:
        raise ParamsError("\n".join(faults))


def _fault(fault: Any, document: Any) -> tuple[list[str], str]:
    """Returns a fault's place in the document, as its keys, and what is wrong there.

    What pydantic adds to the keys (the member of a union that it tried) is left out: no document has it.
    """
    *inner, last = fault["loc"] or ("",)
    key: list[str] = []
    for part in inner:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            continue
        key.append(str(part))
    is_there = _has(document, last)
    if is_there or fault["type"] == "missing":
        key.append(str(last))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return key, "missing; the document has no defaults: add it"
    if document is None and not key:
        wanted = ", ".join(Study.model_fields)
        return (
            key,
            f"empty, wanted the keys {wanted}: `make params STUDY=digits` writes a study",
        )
    found = fault["input"]
    shown = f" (found {found!r})" if isinstance(found, str | int | float | bool) else ""
    return key, f"{message}{shown}" if key else message


def _has(document: Any, key: Any) -> bool:
    try:
        document[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def load(path: Path = PARAMS) -> Study:
    """Returns the validated study; raises ParamsError with a line for each fault."""
    study: Study = validate(Study, read_yaml(path), str(path))
    return study


def digest(study: Study) -> str:
    """Returns the sha256 of a study's content, regardless of comments and order."""
    return canonical_sha256(study.model_dump(mode="json"))


def canonical_sha256(document: Any) -> str:
    """Returns the sha256 of a JSON-like value with sorted keys and no spaces."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def row_of(study: Study, name: str) -> Row:
    """Returns the row `name`; raises ParamsError if `models` has no such row."""
    if name not in study.models:
        raise ParamsError(
            f'params.yaml: models has no row "{name}"; it has {", ".join(study.models)}'
        )
    return study.models[name]


def determining(study: Study, name: str) -> object:
    """Returns what determines a row's training and evaluation, to be compared: its row, its schedule, the evaluation."""
    row = study.models.get(name)
    schedule = Path(row.schedule) if row else None
    text = schedule.read_text(encoding="utf-8") if schedule and schedule.exists() else ""
    return row, text, study.evaluation


def searched(study: Study, name: str) -> object:
    """Returns what determines a search, to be compared: its section, and the searched row but for its schedule."""
    tune = study.tune.get(name)
    row = study.models.get(tune.model) if tune else None
    return tune, row and row.canonical("schedule", "learning_rate_factor")
