"""Which claims a study is asked, and its answers as they stand in report.json."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline import paper
from pipeline.params import Cifar10Data, ImageNetData, Row, Study
from pipeline.report.claims.catalogue import (
    claims_of,
    ensemble,
    ensemble_of_six,
    own,
    published,
)
from pipeline.report.claims.claim import Claim, Decided, decide
from pipeline.report.claims.inference import Errors
from pipeline.report.claims.networks import WITH_WARM_UP, WITHOUT_WARM_UP, Network, comparable

PAPER_SCHEDULES = {"cifar": "schedules/paper-cifar", "imagenet": "schedules/paper-imagenet"}
PAPER_AUGMENTATION = {
    "cifar": {"kind": "pad_crop", "pad_px": 4, "mirror": True},
    "imagenet": {"kind": "scale_crop", "shorter_side_px": {"low": 256, "high": 480}, "crop_px": 224,
                 "mirror": True, "colour_sd": 0.1},
}  # fmt: skip
FROM_DEPTH = 110  # the paper warms such networks up
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
    for family in paper.UPDATES:
        if some := comparable([one for one in networks if one.family == family]):
            asked += [(claim, some) for claim in claims_of(family, chance_pct)]
            asked += [(claim, [one]) for one in some if (claim := _published(study, one, family))]
    members = [one for one in networks if set(one.rows) & set(study.ensemble.members)]
    asked.append((ensemble(members, *best, together), members))
    if six := [one for one in members if one.family == "imagenet"]:
        asked.append((ensemble_of_six(six, study.ensemble.members, *best, together), members))
    asked += [(own(claim, networks), networks) for claim in study.claims]
    found = decide(asked)
    of_paper = [one for one in found if one.of == "paper"]
    return {
        "verdicts": [_written(one, study) for one in found],
        "claims_of_the_paper": len(of_paper),
        "claims_decided": sum(one.verdict in DECIDED for one in of_paper),
    }


def _published(study: Study, network: Network, family: str) -> Claim | None:
    """Returns the claim on the paper's number, for a network trained as the paper's on the paper's data."""
    row = study.models[network.rows[0]]
    data = ImageNetData if family == "imagenet" else Cifar10Data
    as_the_papers = (
        study.data.is_official
        and isinstance(study.data, data)
        and network.updates == paper.UPDATES[family]
        and is_the_papers_recipe(row)
    )
    return published(network, family) if as_the_papers else None


def is_the_papers_recipe(row: Row) -> bool:
    """Tells whether a row is trained by the paper's recipe of its family, however long (sections 3.4 and 4.2)."""
    family = row.network.family
    return (
        family in paper.UPDATES
        and row.schedule.startswith(PAPER_SCHEDULES[family])
        and row.global_batch_size == paper.BATCH[family]
        and row.optimizer.model_dump() == {"momentum": 0.9, "weight_decay": 1e-4}
        and (row.learning_rate_factor, row.label_smoothing, row.extras) == (1.0, 0.0, ())
        and row.precision == "float32"
        and row.augmentation.model_dump() == PAPER_AUGMENTATION[family]
    )


def _written(one: Decided, study: Study) -> dict[str, Any]:
    rows = {}
    for block, depth, option in one.missing:
        kind = "plain" if block == "plain" else "resnet"
        suffix = "" if block == "plain" or option == "A" else f"-{option.lower()}"
        name = f"{kind}-{depth}{suffix}"
        while name in study.models:
            name += "-more"
        rows[name] = row_of(study.models[one.like], block, depth, option)
    return {**asdict(one), "missing": rows}


def row_of(like: Row, block: str, depth: int, option: str) -> dict[str, Any]:
    """Returns the row of params.yaml that a claim lacks: another row's, with that network."""
    network = {"family": like.network.family, "block": block, "depth": depth, "shortcut": option}
    found = {**like.model_dump(mode="json"), "network": network}
    if depth >= FROM_DEPTH and like.schedule == WITHOUT_WARM_UP:
        found["schedule"] = WITH_WARM_UP
    return found
