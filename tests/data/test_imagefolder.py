"""Folders of images."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sources import folders, in_memory
from pipeline.errors import DataError
from pipeline.params import ImageFolderData


def png(colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:xz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def data(**changes: object) -> ImageFolderData:
    return ImageFolderData(**{
        "kind": "imagefolder", "archive": "a.tar", "sha256": "0" * 64, "train_split": "train",
        "test_split": "test", "image_size_px": 8, "val_images": 1, "split_seed": 0, "duplicates_pct": 100, **changes,
    })  # fmt: skip


FILES = {
    "test/cat/0.png": png((0, 0, 1)), "train/dog/1.png": png((0, 0, 2)),
    "train/dog/0.png": png((0, 0, 3)), "train/cat/0.png": png((0, 0, 4)),
    "test/dog/0.png": png((0, 0, 5)), "README.txt": b"hello", "extra/cat/0.png": png((9, 9, 9)),
}  # fmt: skip


def test_order_is_by_class_and_name_whatever_the_archives(tmp_path: Path):
    images = folders.read(archive(tmp_path / "a", FILES), data())
    assert images.classes == ("cat", "dog")
    assert images.train.images[:, 0, 0, 2].tolist() == [4, 3, 2]
    assert images.train.labels.tolist() == [0, 1, 1]
    assert images.test is not None
    assert images.test.labels.tolist() == [0, 1]


def test_a_folder_around_the_splits_does_not_matter(tmp_path: Path):
    files = {f"my-set/{name}": content for name, content in FILES.items()}
    assert folders.read(archive(tmp_path / "a", files), data()).classes == ("cat", "dog")


def test_other_sizes_are_resized_and_cropped_in_the_middle(tmp_path: Path):
    wide = Image.new("RGB", (32, 8), (0, 0, 0))
    wide.paste((255, 255, 255), (12, 0, 20, 8))
    out = io.BytesIO()
    wide.save(out, "PNG")
    assert folders.decode(out.getvalue(), 8, "x")[1].min() == 255


def test_one_class_is_not_enough(tmp_path: Path):
    files = {name: content for name, content in FILES.items() if "dog" not in name}
    with pytest.raises(DataError, match=r"found 1 class\(es\) \['cat'\]"):
        folders.read(archive(tmp_path / "a", files), data())


def test_a_class_without_test_images_is_named(tmp_path: Path):
    files = {name: content for name, content in FILES.items() if name != "test/dog/0.png"}
    with pytest.raises(DataError, match="test/ has no image of dog"):
        folders.read(archive(tmp_path / "a", files), data())


def test_an_image_that_does_not_decode_is_named(tmp_path: Path):
    files = {**FILES, "train/cat/bad.jpg": b"\xff\xd8\xff\xe0 not a picture"}
    with pytest.raises(DataError, match=r"train/cat/bad\.jpg: the image does not decode"):
        folders.read(archive(tmp_path / "a", files), data())


def test_a_truncated_image_is_named(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG")
    files = {**FILES, "train/cat/bad.jpg": out.getvalue()[:600]}
    with pytest.raises(DataError, match=r"train/cat/bad\.jpg"):
        folders.read(archive(tmp_path / "a", files), data())


def test_a_validation_part_that_leaves_nothing_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="uses up all 3 images"):
        in_memory.prepare(data(val_images=3), archive(tmp_path / "a", FILES))
