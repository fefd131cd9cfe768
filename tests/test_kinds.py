"""What is asked of every kind of network, augmentation, extra, schedule and data: nobody forgets one anywhere.

The unions say which kinds there are; who adds one and forgets something is told by name.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from infra import attest
from pipeline.params import Augmentation, Data, Extra, Network, load
from pipeline.training import golden
from pipeline.training.schedule import Schedule
from tests.conftest import REPO

UNIONS = {
    "network": (Network, "family"),
    "augmentation": (Augmentation, "kind"),
    "extras": (Extra, "kind"),
    "schedule": (Schedule, "shape"),
    "data": (Data, "kind"),
}
STUDIES = {path.stem: load(path) for path in (REPO / "studies").glob("*.yaml")}
SCHEMAS = "".join(path.read_text() for path in (REPO / "docs/schema").glob("*.json"))
PAGES = "".join(path.read_text() for path in (REPO / "docs").glob("*.md"))


def kinds() -> Iterator[tuple[str, str, type]]:
    """Yields every kind: where it stands in a document, its name, its type."""
    for place, (union, field) in UNIONS.items():
        for member in get_args(get_args(union)[0]):
            (name,) = get_args(member.model_fields[field].annotation)
            yield place, name, member


def example(place: str, name: str) -> dict[str, Any]:
    """Returns a golden recipe that has a kind: `infra/attest.py` has one of each."""
    for recipe in attest.recipes().values():
        row, plan = recipe["row"], recipe["schedule"]
        found = {
            "network": row["network"]["family"] == name,
            "augmentation": row["augmentation"]["kind"] == name,
            "extras": name in [extra["kind"] for extra in row.get("extras", [])],
            "schedule": plan["shape"] == name,
        }
        if found[place] and not recipe["stops"] and recipe["workers"] == 1:
            return recipe
    raise AssertionError(f"infra/attest.py: no golden recipe has the {place} {name}")


COMPUTING = [(place, name) for place, name, _ in kinds() if place != "data"]


@pytest.mark.slow
@pytest.mark.parametrize("place, name", COMPUTING)
def test_every_kind_resumes_with_the_same_bits(place: str, name: str):
    recipe = example(place, name)
    half = recipe["row"]["report_every_updates"]
    assert golden.trained({**recipe, "stops": [half]}) == golden.trained(recipe)


@pytest.mark.parametrize("place, name, member", list(kinds()))
def test_every_kind_is_described_in_the_schema_and_in_the_documents(
    place: str, name: str, member: type
):
    assert member.__doc__
    described = f'"const": {json.dumps(name)}' in SCHEMAS
    assert described, f"docs/schema says nothing of the {place} {name}: run `make schema`"
    named = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", PAGES)
    assert named, f"docs/studies.md says nothing of the {place} {name}"


@pytest.mark.parametrize("name, member", [(n, m) for place, n, m in kinds() if place == "data"])
def test_every_kind_of_data_has_a_ready_made_study_and_a_title(name: str, member: Any):
    assert member.TITLE
    assert name in {study.data.kind for study in STUDIES.values()}
