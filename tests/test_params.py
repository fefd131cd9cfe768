"""params.yaml: complete, closed, and answered in words."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.schema import FOLDER, schemas
from pipeline import params
from pipeline.errors import ParamsError
from pipeline.execution import judging
from pipeline.params import Row
from pipeline.params.reading import also_in
from pipeline.training.schedule import load_schedule
from tests.conftest import REPO

DOCUMENT = params.read_yaml(REPO / "studies/digits.yaml")


def fault(*path: str, value: object) -> str:
    document = copy.deepcopy(DOCUMENT)
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(ParamsError) as caught:
        params.validate(params.Study, document, "params.yaml")
    return str(caught.value)


@pytest.mark.parametrize("path", sorted((REPO / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_ready_made_studies_are_valid(path: Path):
    study = params.load(path)
    assert study.study == path.stem
    for row in study.models.values():
        assert row.tuned_by or load_schedule(REPO / row.schedule)


def test_the_default_study_is_digits():
    assert params.load(REPO / "studies/digits.yaml") == params.load(REPO / "params.yaml")


def test_a_misspelt_key_is_answered_with_the_nearest():
    message = fault("models", "plain-20", "momentun", value=1)
    assert "params.yaml: models.plain-20" in message
    assert "momentun" in message
    message = fault("models", "plain-20", "optimizer", "momentun", value=0.9)
    wanted = 'models.plain-20.optimizer: unknown key "momentun", wanted "momentum"'
    assert wanted in message
    # one anchor of the YAML is the cause: one line says so
    assert message.endswith("correct or remove it (and in 20 more rows)")
    assert len(message.splitlines()) == 1


def test_a_missing_key_has_no_default():
    document = copy.deepcopy(DOCUMENT)
    del document["models"]["plain-20"]["seed"]
    with pytest.raises(ParamsError, match=r"models\.plain-20\.seed: missing"):
        params.validate(params.Study, document, "params.yaml")


def test_a_depth_must_be_6n_plus_2():
    message = fault("models", "plain-20", "network", "depth", value=21)
    assert "models.plain-20.network.depth" in message
    assert "wanted 6n+2" in message
    assert "20 or 26" in message


def test_an_ensemble_member_must_be_a_row():
    assert '"resnet-99" is not a row' in fault(
        "ensemble", "members", value=["plain-20", "resnet-99"]
    )


def test_shares_of_several_gpus_are_refused():
    said = fault("execution", "worker_gpus", value=1.5)
    assert "execution.worker_gpus: found 1.5, wanted a fraction of one or a whole number" in said


def test_two_rows_of_one_training_are_told(capsys: pytest.CaptureFixture[str]):
    """Copied, and the seed not changed; or of an experiment of DVC's, of a seed that is there."""
    models = {**DOCUMENT["models"], "copy": DOCUMENT["models"]["plain-20"]}
    judging.warn_of_equal_rows(params.Study(**{**DOCUMENT, "models": models}))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "models.copy: equal to plain-20 in every value" in said[0]


def test_the_searched_model_must_be_a_row():
    said = fault("tune", "resnet-20", "model", value="resnet-99")
    assert 'tune.resnet-20.model: "resnet-99" is not a row' in said


def test_a_tuned_schedule_must_be_a_searchs():
    said = fault("models", "resnet-20-tuned", "schedule", value="tuned/other.yaml")
    assert "tune has no search other; it has resnet-20" in said


def test_rungs_must_be_reports():
    said = fault("tune", "resnet-20", "grace_updates", value=99)
    assert "grace_updates 99 is not a multiple of report_every_updates 50" in said


@pytest.mark.parametrize("network, message", [
    ({"family": "cifar", "block": "bottleneck", "depth": 164, "shortcut": "B"},
     "models.plain-20.network.block: the CIFAR family has no bottleneck networks"),
    ({"family": "cifar", "block": "plain", "depth": 20, "shortcut": "A"},
     "models.plain-20.network: shortcut A on a plain network"),
    ({"family": "cifar", "block": "basic", "depth": 20, "shortcut": "none"},
     "models.plain-20.network: shortcut none with block basic"),
    ({"family": "cifar", "block": "basic", "depth": 20, "shortcut": "D"},
     "models.plain-20.network.shortcut: Input should be 'none', 'A', 'B' or 'C' (found 'D')"),
    ({"family": "imagenet", "block": "basic", "depth": 50, "shortcut": "B"},
     "models.plain-20.network: depth 50 with block basic is not in Table 1"),
    ({"family": "imagenet", "block": "bottleneck", "depth": 200, "shortcut": "B"},
     "which has depth 50 or 101 or 152 for it"),
    ({"family": "vgg", "block": "plain", "depth": 19, "shortcut": "none"},
     "models.plain-20.network"),
])  # fmt: skip
def test_networks_that_do_not_exist_are_answered_with_their_key(
    network: dict[str, object], message: str
):
    assert message in fault("models", "plain-20", "network", value=network)


@pytest.mark.parametrize("augmentation, message", [
    ({"kind": "pad_crop", "pad_px": 8, "mirror": False}, "models.plain-20.augmentation.pad_px 8"),
    ({"kind": "scale_crop", "shorter_side_px": {"low": 200, "high": 480}, "crop_px": 224,
      "mirror": True, "colour_sd": 0.1}, "crop_px 224 is above shorter_side_px.low 200"),
    ({"kind": "random_resized_crop", "crop_px": 16, "mirror": True,
      "area_fraction": {"low": 0.0, "high": 1.0}, "aspect_ratio": {"low": 0.7, "high": 1.4}},
     "models.plain-20.augmentation: area_fraction must lie above 0"),
    ({"kind": "pad_crop", "crop_px": 8, "mirror": False}, 'unknown key "crop_px"'),
])  # fmt: skip
def test_impossible_augmentations_are_answered_with_their_key(
    augmentation: dict[str, object], message: str
):
    assert message in fault("models", "plain-20", "augmentation", value=augmentation)


def test_every_number_of_elastic_workers_must_share_a_batch_evenly():
    elastic = {"elastic": True, "low": 2, "high": 4}
    message = fault("models", "plain-20", "workers", value=elastic)
    assert "global_batch_size 64 is not a multiple of 3 = workers 3" in message
    backwards = fault("models", "plain-20", "workers", value={**elastic, "low": 5})
    assert "low 5 is above high 4: swap them" in backwards


def test_elastic_workers_are_a_range(row: Callable[..., Row]):
    assert row(workers={"elastic": True, "low": 1, "high": 2}).worker_bounds == (1, 2)
    assert row(workers=2).worker_bounds == (2, 2)


def test_workers_and_pieces_must_share_a_batch_evenly():
    message = fault("models", "plain-20", "workers", value=3)
    assert "models.plain-20: global_batch_size 64 is not a multiple of 3 = workers 3" in message
    message = fault("models", "plain-20", "gradient_accumulation_steps", value=48)
    assert "gradient_accumulation_steps 48" in message


def test_a_row_may_be_called_like_a_kind():
    models = {**DOCUMENT["models"], "cifar": {**DOCUMENT["models"]["plain-20"], "seed": -1}}
    assert "models.cifar.seed" in fault("models", value=models)


def test_a_row_name_stays_inside_its_folder():
    row = DOCUMENT["models"]["plain-20"]
    assert "lower-case letters" in fault("models", value={**DOCUMENT["models"], "../x": row})


def test_a_schedule_stays_inside_the_study():
    assert "inside the study" in fault("models", "plain-20", "schedule", value="/etc/x.yaml")


def test_not_a_number_is_refused():
    assert "finite" in fault("models", "plain-20", "learning_rate_factor", value=float("nan"))


def test_an_archive_needs_its_checksum():
    data = params.read_yaml(REPO / "studies/folder.yaml")["data"]
    assert "needs its sha256" in fault("data", value={**data, "sha256": None})
    assert "64 lower-case" in fault("data", value={**data, "sha256": "abc"})


def test_the_test_images_must_not_be_the_training_images():
    data = params.read_yaml(REPO / "studies/folder.yaml")["data"]
    assert "must be different ones" in fault("data", value={**data, "test_split": "train"})


def test_a_duplicate_key_is_refused(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("study: a\nstudy: b\n")
    with pytest.raises(ParamsError, match="duplicate"):
        params.load(tmp_path / "params.yaml")


def test_the_digest_ignores_comments_and_order(tmp_path: Path):
    text = (REPO / "params.yaml").read_text()
    (tmp_path / "b.yaml").write_text(f"# a comment\n{text}")
    assert params.digest(params.load(tmp_path / "b.yaml")) == params.digest(
        params.load(REPO / "params.yaml")
    )


def test_the_committed_schema_is_what_the_types_say():
    for name, text in schemas().items():
        assert (REPO / FOLDER / name).read_text() == text


@pytest.mark.parametrize(
    "count, wanted", [(1, ""), (2, " (and in 1 more row)"), (3, " (and in 2 more rows)")]
)
def test_rows_that_share_a_fault_are_counted(count: int, wanted: str):
    assert also_in(["row"] * count) == wanted
