"""Broken studies are refused before any work, with file, key, what was found and what is wanted."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import params
from pipeline.data import fitting
from pipeline.errors import ParamsError, StudyError
from pipeline.execution import judging
from pipeline.params import TorchvisionNetwork
from stages import check
from tests.conftest import REPO, run_in

DOCUMENT = params.read_yaml(REPO / "studies/digits.yaml")
ROW = "plain-20"
Break = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the schedules and params.yaml of the default study."""
    shutil.copytree(REPO / "schedules", tmp_path / "schedules")
    put(tmp_path, DOCUMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, document: Any, name: str = "params.yaml") -> None:
    with (folder / name).open("w") as file:
        YAML(typ="safe", pure=True).dump(document, file)


def of_row(**changes: Any) -> Break:
    return lambda document: document["models"][ROW].update(changes)


def without(*path: str) -> Break:
    def remove(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return remove


def rename(name: str) -> Break:
    return lambda d: d["models"].update({name: d["models"][ROW]})


BROKEN: dict[str, tuple[Break, str]] = {
    "no study": (without("study"), r"study: missing.*add it"),
    "no data": (without("data"), r"data: missing"),
    "no models": (without("models"), r"models: missing"),
    "models empty": (lambda d: d["models"].clear(), r"models: .*at least 1"),
    "no tune": (without("tune"), r"tune: missing"),
    "a list for models": (lambda d: d.update(models=[]), r"models: .*dictionary"),
    "a number for a section": (lambda d: d.update(data=3), r"data: "),
    "an unknown section": (lambda d: d.update(modles={}), r'unknown key "modles", wanted "models"'),
    "an unknown kind of data": (lambda d: d["data"].update(kind="cifar11"), r"data: .*'cifar10'"),
    "a misspelt key of data": (lambda d: d["data"].update(valimages=3), r"data: .*wanted \"val_images\""),
    "no images for val": (lambda d: d["data"].update(val_images=0), r"data\.val_images: .*greater than 0"),
    "a share above 100": (lambda d: d["data"].update(duplicates_pct=101), r"data\.duplicates_pct: "),
    "a row with a shell's command": (rename("a$(touch x)"), r"models\.a\$\(touch x\).*lower-case"),
    "a row with a quote": (rename("a';touch x;'"), r"lower-case letters, digits"),
    "a row in another folder": (rename("../x"), r"lower-case letters"),
    "a row with a space": (rename("a b"), r"lower-case letters"),
    "a missing key of a row": (without("models", ROW, "seed"), rf"models\.{ROW}\.seed: missing"),
    "a misspelt key of a row": (of_row(precison="float32"), rf'models\.{ROW}: .*wanted "precision"'),
    "an unknown precision": (of_row(precision="float16"), rf"models\.{ROW}\.precision: .*'float32'.*float16"),
    "no threads": (of_row(threads=0), rf"models\.{ROW}\.threads: .*greater than 0"),
    "a seed below 0": (of_row(seed=-1), rf"models\.{ROW}\.seed: .*found -1"),
    "a text for a number": (of_row(global_batch_size="many"), rf"models\.{ROW}\.global_batch_size: .*many"),
    "an infinite factor": (of_row(learning_rate_factor=float("inf")), r"learning_rate_factor: .*finite"),
    "a batch that workers cannot share": (of_row(workers=3), rf"models\.{ROW}: global_batch_size 64 .*change one"),
    "a depth between networks": (
        lambda d: d["models"]["resnet-20"]["network"].update(depth=21), r"network\.depth: .*wanted 6n\+2",
    ),
    "a family that is none": (
        lambda d: d["models"][ROW].update(network={"family": "vgg", "depth": 19}), rf"models\.{ROW}\.network: ",
    ),
    "a schedule that is not there": (
        of_row(schedule="schedules/digitz.yaml"),
        rf"models\.{ROW}\.schedule: schedules/digitz\.yaml does not exist; .*schedules/digits\.yaml, .*: correct",
    ),
    "a schedule of another folder": (of_row(schedule="../digits.yaml"), r"schedule: .*inside the study"),
    "a schedule that no search finds": (
        of_row(schedule="tuned/none.yaml"), rf"models\.{ROW}\.schedule: .*no search none; it has resnet-20",
    ),
    "a schedule that is no YAML": (
        lambda d: Path("schedules/digits.yaml").write_text("shape: [cosine"), r"schedules/digits\.yaml: not a YAML",
    ),
    "a schedule with a misspelt key": (
        lambda d: Path("schedules/digits.yaml").write_text(
            "shape: cosine\nbase_rl: 0.1\ntotal_updates: 9\nwarmup: null\n"
        ),
        r'schedules/digits\.yaml: .*unknown key "base_rl", wanted "base_lr"',
    ),
    "an empty schedule": (lambda d: Path("schedules/digits.yaml").write_text(""), r"schedules/digits\.yaml: "),
    "drops after the end": (
        lambda d: Path("schedules/digits.yaml").write_text(
            "shape: step\nbase_lr: 0.1\ntotal_updates: 9\nwarmup: null\ndrops: [12]\n"
        ),
        r"schedules/digits\.yaml: drops \[12\] must rise and lie below total_updates 9",
    ),
    "a search for no row": (
        lambda d: d["tune"]["resnet-20"].update(model="resnet-21"),
        r'tune\.resnet-20\.model: "resnet-21" is not a row, wanted',
    ),
    "a search with a path for a name": (
        lambda d: d["tune"].update({"../x": d["tune"]["resnet-20"]}), r"tune\.\.\./x.*lower-case",
    ),
    "rungs between reports": (
        lambda d: d["tune"]["resnet-20"].update(grace_updates=99), r"grace_updates 99 is not a multiple",
    ),
    "a range the wrong way round": (
        lambda d: d["tune"]["resnet-20"]["space"].update(base_lr={"low": 1, "high": 0.1}),
        r"tune\.resnet-20\.space\.base_lr: low 1\.0 is above high 0\.1: swap",
    ),
    "a member that is no row": (
        lambda d: d["ensemble"].update(members=["plain-20", "x"]), r'ensemble\.members: "x" is not a row',
    ),
    "one member twice": (
        lambda d: d["ensemble"].update(members=["plain-20", "plain-20"]), r"ensemble: a member is named twice",
    ),
    "one member": (lambda d: d["ensemble"].update(members=["plain-20"]), r"ensemble\.members: .*at least 2"),
    "scales of small images": (
        lambda d: d["evaluation"].update(scales_px=[224]), r"evaluation\.scales_px is .*null",
    ),
    "padding as large as the image": (
        of_row(augmentation={"kind": "pad_crop", "pad_px": 8, "mirror": False}),
        rf"models\.{ROW}\.augmentation\.pad_px 8: twice that must be less",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_study_is_refused_with_its_place(folder: Path, what: str):
    change, wanted = BROKEN[what]
    document = copy.deepcopy(DOCUMENT)
    change(document)
    put(folder, document)
    with pytest.raises(StudyError) as caught:
        check.main()
    assert re.search(wanted, str(caught.value)), caught.value
    assert re.match(r"(params|schedules/[a-z]+)\.yaml: ", str(caught.value)), caught.value
    assert "function-" not in str(caught.value)
    assert not (folder / "state").exists()


@pytest.mark.parametrize("text, wanted", [
    ("", r"params\.yaml: empty, wanted the keys study, data, .*make params STUDY=digits"),
    ("study: [", r"params\.yaml: not a YAML document"),
    ("- a\n- b\n", r"params\.yaml: "),
    ("study: a\nstudy: b\n", r"duplicate key"),
])  # fmt: skip
def test_what_is_no_study_is_told_in_our_words(folder: Path, text: str, wanted: str):
    (folder / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=wanted):
        check.main()


def test_a_missing_document_is_told(folder: Path):
    (folder / "params.yaml").unlink()
    with pytest.raises(ParamsError, match=r"params\.yaml: not found"):
        check.main()


def test_every_fault_has_a_line_and_an_anchor_one(folder: Path):
    document = copy.deepcopy(DOCUMENT)
    for row in document["models"].values():
        row["schedule"] = "schedules/none.yaml"
    document["models"][ROW]["schedule"] = "schedules/neither.yaml"
    document["models"]["resnet-20-tuned"]["seed"] = 2**20  # else it were resnet-20
    put(folder, document)
    with pytest.raises(ParamsError) as caught:
        check.main()
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "(and in 19 more rows): schedules/none.yaml does not exist" in lines[1]


def test_a_sound_study_is_said_to_be_checked_and_always_alike(folder: Path):
    for _ in range(2):
        check.main()
        assert (folder / "state/check").read_text() == "checked\n"


def test_a_precision_that_only_other_machines_have_is_told_and_refuses_no_collecting(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    document = copy.deepcopy(DOCUMENT)
    document["models"][ROW]["precision"] = "tf32"
    put(folder, document)
    check.main()
    said = capsys.readouterr().err
    assert f"warning: params.yaml: models.{ROW}.precision is tf32" in said
    assert "what is trained already is collected" in said


@pytest.mark.parametrize(
    "network, said",
    [
        (
            "vit_b_16",
            r"models\.resnet-18: the network takes no images of 128 x 170 pixels .* tested whole",
        ),
        ("regnet_x_400mf", None),  # reads values while it is built
    ],
)
def test_a_network_must_take_the_images_that_it_will_see(network: str, said: str | None):
    study = params.load(REPO / "studies/imagenette.yaml")
    arguments = {"image_size": 128} if network == "vit_b_16" else {}
    chosen = TorchvisionNetwork(family="torchvision", name=network, arguments=arguments)
    row = study.models["resnet-18"].model_copy(update={"network": chosen})
    study = study.model_copy(update={"models": {"resnet-18": row}})
    if said is None:
        judging.require_networks(study)
    else:
        with pytest.raises(ParamsError, match=said):
            judging.require_networks(study)


def test_a_batch_larger_than_the_training_set_is_called_that(folder: Path):
    study = params.load()
    summary = {
        "recipe": fitting.recipe_of(study),
        "images": {"train": 50},
        "image_shape": [8, 8, 1],
    }
    (folder / "data").mkdir()
    (folder / "data/digest.json").write_text(json.dumps(summary))
    with pytest.raises(ParamsError) as caught:
        check.main()
    assert str(caught.value) == (
        "params.yaml: models.plain-20.global_batch_size: 64 is larger than the training set of 50 images, "
        "so a batch would contain an image twice: lower it to 50 or less (and in 20 more rows)"
    )
    (folder / "data/digest.json").write_text(json.dumps({**summary, "recipe": "another"}))
    check.main()  # `prepare` makes the data anew, and judges then


def test_the_command_ends_with_one_line_and_no_traceback(tmp_path: Path):
    document = copy.deepcopy(DOCUMENT)
    document["models"]["a$(touch x)"] = document["models"][ROW]
    put(tmp_path, document)
    done = run_in(tmp_path, "python", "-m", "stages.check", PYTHONPATH=str(REPO))
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml: models.a$(touch x)")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()
