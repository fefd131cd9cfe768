"""Trainings on a machine without S3, in a folder, and their way home."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from pipeline import params
from pipeline.commands import bring
from pipeline.errors import CheckpointError, ParamsError
from pipeline.params import Row
from pipeline.storage.checkpoints import CheckpointStore
from pipeline.storage.objects import Storage
from pipeline.training import offline
from pipeline.training.offline import FolderCheckpoints
from tests.conftest import REPO, TINY, write_params
from tests.training.test_run import Killed

CPU = torch.device("cpu")


@pytest.fixture
def clone(
    tmp_path: Path, digits_path: Path, row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A clone's study of two rows, with its prepared data."""
    small = row().model_dump(mode="json")
    document = params.read_yaml(REPO / "studies/digits.yaml")
    document["models"] = {"one": small, "two": {**small, "seed": 2}}
    document |= {"tune": {}, "ensemble": {"members": ["one", "two"]}}
    write_params(tmp_path, document)
    (tmp_path / "schedules").mkdir()
    YAML().dump(TINY, tmp_path / "schedules/tiny.yaml")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/arrays.safetensors").symlink_to(digits_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def only(folder: Path) -> FolderCheckpoints:
    """The checkpoints of the one training in a folder."""
    (document,) = folder.glob("*.json")
    return FolderCheckpoints(folder, document.stem)


def test_a_killed_training_goes_on_in_its_folder_and_ends_with_the_same_bits(
    clone: Path, monkeypatch: pytest.MonkeyPatch
):
    offline.train("one", clone / "whole", CPU)
    save = FolderCheckpoints.save

    def killed(self: FolderCheckpoints, checkpoint: object) -> None:
        save(self, checkpoint)  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FolderCheckpoints, "save", killed)
        with pytest.raises(Killed):
            offline.train("one", clone / "killed", CPU)
    begun = only(clone / "killed").latest()
    assert begun is not None and 0 < begun.facts.update < TINY["total_updates"]
    offline.train("one", clone / "killed", CPU)
    whole, killed_and_resumed = (only(clone / name).latest() for name in ("whole", "killed"))
    assert whole is not None and killed_and_resumed is not None
    assert whole.tensors == killed_and_resumed.tensors
    assert len(list((clone / "killed").glob("*.safetensors"))) == 1  # the last alone is kept


def test_what_is_brought_home_is_collected_and_brought_once(
    clone: Path, storage: Storage, capsys: pytest.CaptureFixture[str]
):
    offline.main("trained", "one", "two")
    for said in ("12 of 12 updates committed", "S3 has it up to update 12 already"):
        capsys.readouterr()
        bring.main("trained")
        assert capsys.readouterr().out.count(said) == 2
    for document in (clone / "trained").glob("*.json"):
        home = CheckpointStore(storage, document.stem).finished()
        away = FolderCheckpoints(clone / "trained", document.stem).latest()
        assert home is not None and away is not None
        assert home.tensors == away.tensors
        assert home.facts.history == away.facts.history


def test_what_other_source_computed_is_refused_before_anything_is_committed(
    clone: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    offline.main("trained", "one", "two")
    keys = sorted(path.stem for path in (clone / "trained").glob("*.json"))
    document = clone / "trained" / f"{keys[-1]}.json"
    source = FolderCheckpoints(clone / "trained", keys[-1]).latest().facts.source  # type: ignore[union-attr]
    assert source is not None
    document.write_text(document.read_text().replace(source, "0" * 64))
    before = storage.keys("")
    with pytest.raises(CheckpointError, match="computed on cpu by source 000000000000"):
        bring.main("trained")
    assert storage.keys("") == before


def test_a_damaged_checkpoint_is_told_and_not_used(clone: Path):
    offline.train("one", clone / "trained", CPU)
    (tensors,) = (clone / "trained").glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        offline.train("one", clone / "trained", CPU)


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_without_trainings_is_told(clone: Path, storage: Storage, folder: str):
    with pytest.raises(ParamsError, match=f"FROM={folder}: wanted a folder"):
        bring.main(folder)


@pytest.mark.slow
def test_neither_s3_nor_ray_is_needed(clone: Path):
    """The modules that this machine alone has are not imported."""
    from tests.conftest import run_in

    code = (
        "import sys\n"
        "for name in ('boto3', 'botocore', 'ray', 'mlflow', 'dvc', 'pyarrow', 'scipy', 'torchvision', 'sklearn',\n"
        "             'pandas', 'requests', 'jinja2', 'configobj', 'onnx', 'yaml'):\n"
        "    sys.modules[name] = None\n"
        "from pipeline.training import offline\n"
        "offline.main('trained', 'one')"
    )
    done = run_in(clone, "python", "-c", code, PYTHONPATH=str(REPO))
    assert done.returncode == 0, done.stderr
    assert "one: 12 updates" in done.stdout
