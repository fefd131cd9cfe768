"""Which claims a study is asked, and its answers as they stand in report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.params import Row, Study
from pipeline.report.claims.catalogue import DEEPEST, claims_of, ensemble, published
from pipeline.report.claims.claim import Claim, Decided, decide
from pipeline.report.claims.inference import Errors
from pipeline.report.claims.networks import Network, comparable

PAPER_UPDATES = {"cifar": 64_000, "imagenet": 600_000}  # sections 4.2 and 3.4
DECIDED = ("holds", "does not hold")


def verdicts(
    study: Study,
    networks: Sequence[Network],
    chance_pct: float,
    best: tuple[str, Errors],
    together: Errors,
) -> dict[str, Any]:
    """Returns the verdicts, and how many of the paper's claims are decided.

    `best` is the ensemble's best member on validation images, with its errors on test images; `together` are
    the ensemble's.
    """
    asked: list[tuple[Claim, Sequence[Network]]] = []
    for family in PAPER_UPDATES:
        if some := comparable([one for one in networks if one.family == family]):
            asked += [(claim, some) for claim in claims_of(family, chance_pct)]
            asked += [(claim, [one]) for one in some if (claim := _published(study, one, family))]
    asked.append((ensemble(*best, together), networks))
    found = decide(asked)
    of_paper = [one for one in found if one.of == "paper"]
    return {
        "verdicts": [_written(one, study) for one in found],
        "claims_of_the_paper": len(of_paper),
        "claims_decided": sum(one.verdict in DECIDED for one in of_paper),
    }


def _published(study: Study, network: Network, family: str) -> Claim | None:
    """Returns the claim on the paper's number, for a network trained as the paper's on the paper's data."""
    whole = network.updates == PAPER_UPDATES[family]
    if not study.data.is_official or not whole or network.depth == DEEPEST:
        return None
    return published(network, family)


def _written(one: Decided, study: Study) -> dict[str, Any]:
    rows = {}
    for block, depth, option in one.missing:
        if (row := row_of(study.models, block, depth, option)) is not None:
            rows[f"{'plain' if block == 'plain' else 'resnet'}-{depth}{_suffix(block, option)}"] = (
                row
            )
    return {**asdict(one), "missing": rows}


def _suffix(block: str, option: str) -> str:
    return "" if block == "plain" or option == "A" else f"-{option.lower()}"


def row_of(models: Mapping[str, Row], block: str, depth: int, option: str) -> dict[str, Any] | None:
    """Returns the row of params.yaml that a claim lacks: the first row of the family, with that network."""
    for row in models.values():
        document = row.model_dump(mode="json")
        if row.network.family in PAPER_UPDATES:
            network = {
                "family": row.network.family,
                "block": block,
                "depth": depth,
                "shortcut": option,
            }
            return {**document, "network": network}
    return None
