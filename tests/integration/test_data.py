"""Data sets through the stages `fetch` and `prepare`, by the commands that a user types."""

import hashlib
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from infra.local import s3
from pipeline.data import dataset
from pipeline.storage.objects import Storage
from tests.conftest import copy_study, read_params, run_in, write_params
from tests.data.test_cifar import CLASSES, archive

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, own_state: Path) -> Path:
    return copy_study(tmp_path_factory.mktemp("data") / "study")


def use(study: Path, **data: object) -> None:
    document = read_params(study)
    document["data"] = data
    for row in document["models"].values():
        row["global_batch_size"] = 2  # of very few images
    write_params(study, document)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cifar(study: Path, folder: Path) -> Path:
    path = archive(folder / "cifar-10-python.tar.gz", count=8)
    use(
        study,
        kind="cifar10",
        archive=path.name,
        sha256=sha256(path),
        val_images=10,
        split_seed=0,
        duplicates_pct=100,
    )
    return path


def test_an_archive_of_cifar_10s_layout_becomes_arrays(study: Path, tmp_path: Path):
    cifar(study, tmp_path)
    spaced = tmp_path / "a place"
    spaced.mkdir()
    (tmp_path / "cifar-10-python.tar.gz").rename(spaced / "cifar-10-python.tar.gz")
    done = run_in(study, "dvc", "repro", "prepare", STUDY_MIRRORS=f"/nowhere '{spaced}'")
    assert done.returncode == 0, done.stdout + done.stderr
    data = dataset.load(study / "data/arrays.safetensors")
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 8)
    assert data.classes == tuple(name.decode() for name in CLASSES)
    assert json.loads((study / "data/digest.json").read_text())["digest"] == data.digest
    assert str(tmp_path) not in (study / "dvc.lock").read_text()


def test_a_truncated_archive_is_refused_by_its_checksum(study: Path, tmp_path: Path):
    path = cifar(study, tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    (study / "data/archive").unlink(missing_ok=True)
    done = run_in(study, "python", "-m", "stages.fetch", STUDY_MIRRORS=str(tmp_path))
    assert done.returncode == 2
    assert "error: cifar-10-python.tar.gz: no place has it with sha256" in done.stderr
    assert "(1,000 bytes)" in done.stderr
    assert not (study / "data/archive").exists()


def test_a_malicious_archive_stops_prepare_and_earlier_arrays_stay(study: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return print, ("owned",)

    earlier = study / "data/arrays.safetensors"
    kept = earlier.read_bytes()
    archive(study / "data/archive", data_batch_1={b"labels": [0], b"data": Evil()})
    use(
        study,
        kind="cifar10",
        archive="a",
        sha256="0" * 64,
        val_images=1,
        split_seed=0,
        duplicates_pct=100,
    )
    done = run_in(study, "python", "-m", "stages.prepare")
    assert done.returncode == 2
    assert "it may be malicious" in done.stderr
    assert "owned" not in done.stdout
    assert earlier.read_bytes() == kept


def test_images_under_an_s3_prefix_become_arrays(study: Path, storage: Storage):
    for split in ("train", "test"):
        for label, grey in (("dark", 10), ("light", 240)):
            for number in range(4):
                out = io.BytesIO()
                Image.new("RGB", (8, 8), (grey, grey, number)).save(out, "PNG")
                storage.put(f"photos/{split}/{label}/{number}.png", out.getvalue())
    use(
        study, kind="imagefolder", archive=f"s3://{storage.bucket}/photos/", sha256=None,
        train_split="train", test_split="test", image_size_px=8, val_images=2, split_seed=0, duplicates_pct=100,
    )  # fmt: skip
    done = run_in(study, "dvc", "repro", "prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    data = dataset.load(study / "data/arrays.safetensors")
    assert data.classes == ("dark", "light")
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 8)
    assert s3.running() is not None
