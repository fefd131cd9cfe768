"""Inputs that have gone wrong for people, read by both kinds of sets: told, or refused before any work."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.feeding.pixels import to_rgb
from pipeline.data.sources import account, in_memory, listing, packing
from pipeline.data.sources.choosing import ELSEWHERE, HIDDEN, NO_IMAGE, REPLACED
from pipeline.data.sources.listing import Entry
from pipeline.errors import DataError
from pipeline.params import ImageFolderData, PhotosData

Items = list[tuple[str, bytes]]
SETTINGS = {
    "archive": "a.tar", "sha256": "0" * 64, "train_split": "train", "test_split": "test",
    "val_images": 6, "split_seed": 0, "duplicates_pct": 100,
}  # fmt: skip
RNG = np.random.default_rng(0)


def picture(mean: float = 60, mode: str = "RGB", form: str = "PNG") -> bytes:
    """Returns an image's file of noise about a value."""
    noise = RNG.normal(mean, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        image = Image.fromarray(noise[..., 0].astype(np.int32 if mode == "I" else np.float32))
    else:
        image = Image.fromarray(noise).convert(mode)
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def base(mode: str = "RGB") -> Items:
    """Returns two classes, cat (dark) and dog (bright), of 20 training and 8 test images."""
    return [
        (f"{split}/{name}/{number:03d}.png", picture(mean, mode))
        for name, mean in (("cat", 60), ("dog", 120))
        for split, count in (("train", 20), ("test", 8))
        for number in range(count)
    ]


def tar(path: Path, items: Items, **options: Any) -> Path:
    """Writes a plain tar; names may come twice."""
    with tarfile.open(path, "w", **options) as archive:
        for name, content in items:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(items: Items) -> bytes:
    """Returns a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in items:
            archive.writestr(name, content)
    return out.getvalue()


def account_in_memory(path: Path, **changes: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the account of a set in memory, and its training images' means."""
    settings = {**SETTINGS, "kind": "imagefolder", "image_size_px": 16, **changes}
    made, found = in_memory.prepare(ImageFolderData(**settings), path)
    return found, made["train_images"].reshape(len(made["train_images"]), -1).mean(axis=1)


def in_shards(path: Path, **changes: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the account of a set in shards, and its shards' mean thumbnails' means."""
    settings = {
        **SETTINGS, "kind": "photos", "shorter_side_px": None, "jpeg_quality": None, "shard_mb": 1,
        "shuffle_shards": 2, "undecodable_images": 0, **changes,
    }  # fmt: skip
    data = PhotosData(**settings)
    found = listing.of_folders(listing.in_tar(listing.plain_tar(path)), data, path.name)
    pieces = packing.plan(data, found)
    packed = [packing.pack(piece, data, "key", Entry.read)[1] for piece in pieces]
    index = packing.index(data, found.classes, pieces, packed)
    return packing.account_of(found, pieces, packed), index["mean"].reshape(1, -1).mean(axis=1)


Reader = Callable[..., tuple[dict[str, Any], np.ndarray]]
both = pytest.mark.parametrize("read", [account_in_memory, in_shards])


@both
def test_the_base_is_taken_whole_and_nothing_is_said(tmp_path: Path, read: Reader):
    found, _ = read(tar(tmp_path / "a.tar", base()))
    assert found["images"] == {"train": 34, "val": 6, "test": 16}
    assert found["classes"] == 2
    assert sum(line["train"] for line in found["by_class"]) == 34
    assert [(line["class"], line["test"]) for line in found["by_class"]] == [("cat", 8), ("dog", 8)]
    assert found["modes"] == {"RGB": 56}
    assert account.said(found) == []


@both
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path, read: Reader):
    found, means = read(tar(tmp_path / "a.tar", base("I;16")))
    assert 40 < means.mean() < 140
    assert found["modes"] == {"I;16": 56}
    assert "pixel modes other than RGB: 56 I;16" in account.said(found)
    assert found["all_pixels_equal"] == 0


@both
@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_an_agreed_range_are_refused_by_name(
    tmp_path: Path, read: Reader, mode: str
):
    deep = [*base(), ("train/cat/deep.tif", picture(60, mode, "TIFF"))]
    with pytest.raises(DataError, match=rf"train/cat/deep\.tif.*mode {mode}"):
        read(tar(tmp_path / "a.tar", deep))


@both
def test_a_set_that_lies_twice_is_refused_with_both_roots(tmp_path: Path, read: Reader):
    twice = [(f"{root}/{name}", content) for root in ("c", "c/c") for name, content in base()]
    with pytest.raises(DataError, match=r"below 2 folders: c/ .*; c/c/ .*validation"):
        read(tar(tmp_path / "a.tar", twice))


@both
@pytest.mark.parametrize("name", ["sample.zip", "train_labels.xlsx"])
def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path, read: Reader, name: str):
    items = base()
    found, _ = read(tar(tmp_path / "a.tar", [*items, (name, zipped(items[:4]))]))
    assert found["images"] == {"train": 34, "val": 6, "test": 16}
    assert found["left"][NO_IMAGE] == {"files": 1, "example": name}
    assert f"left out: 1 {NO_IMAGE}, such as {name}" in account.said(found)


@both
def test_an_images_first_bytes_decide_and_not_its_name(tmp_path: Path, read: Reader):
    items = [
        (name.replace(".png", ending), content)
        for ending, (name, content) in zip(
            [".jfif", ".pgm", ".photo", ".PNG"] * 14, base(), strict=True
        )
    ]
    found, _ = read(tar(tmp_path / "a.tar", items))
    assert found["images"] == {"train": 34, "val": 6, "test": 16}


@both
def test_a_class_without_training_images_after_val_was_cut_is_refused(tmp_path: Path, read: Reader):
    rare = [(f"{split}/rare/0.png", picture(250)) for split in ("train", "test")]
    path, outcomes = tar(tmp_path / "a.tar", [*base(), *rare]), []
    for seed in range(12):
        try:
            found, _ = read(path, val_images=10, split_seed=seed)
        except DataError as error:
            assert "image of rare is left" in str(error)
            outcomes.append("refused")
        else:
            assert found["by_class"][2]["train"] == 1
            assert "1 classes have fewer than 5 training images: rare" in account.said(found)
            outcomes.append("told")
    assert set(outcomes) == {"refused", "told"}


@both
def test_test_images_that_are_training_images_are_counted(tmp_path: Path, read: Reader):
    items = base()
    trained = [(name, content) for name, content in items if name.startswith("train")]
    leaked = [
        (name.replace("train", "test").replace("/0", "/9"), content)
        for name, content in trained[:34]
    ]
    found, _ = read(tar(tmp_path / "a.tar", [*items, *leaked]))
    twice = found["duplicates"]
    assert twice["test_in_train"] + twice["test_in_val"] == 34
    assert twice["val_in_train"] == 0
    assert f"duplicates: {twice['test_in_train']} test images are training images too" in (
        account.said(found)
    )
    with pytest.raises(DataError, match=r"of 50 test images are training images .*duplicates_pct"):
        account.require_sound(found, 1.0)
    account.require_sound(found, 100.0)


@both
def test_validation_images_that_are_training_images_are_counted(tmp_path: Path, read: Reader):
    same = picture(60)
    items = [(name, same if "train/cat" in name else content) for name, content in base()]
    found, _ = read(tar(tmp_path / "a.tar", items), val_images=12)
    assert found["duplicates"]["val_in_train"] > 0
    assert found["duplicates"]["within_train"] > 0
    with pytest.raises(DataError, match="of 12 val images are training images"):
        account.require_sound(found, 1.0)


@both
def test_a_name_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path, read: Reader):
    latin = [(name.replace("cat", "café"), content) for name, content in base()]
    path = tar(tmp_path / "a.tar", latin, format=tarfile.GNU_FORMAT, encoding="latin-1")
    with pytest.raises(DataError, match=r"member 1: its name b'train/caf\\xe9/000\.png'"):
        read(path)


@both
def test_a_class_name_that_cannot_be_printed_is_refused(tmp_path: Path, read: Reader):
    items = [(name.replace("cat", "c\x07at"), content) for name, content in base()]
    with pytest.raises(DataError, match="cannot be printed: rename it"):
        read(tar(tmp_path / "a.tar", items))


@both
def test_hidden_files_and_folders_are_left_aloud(tmp_path: Path, read: Reader):
    hidden = [
        *((f"{split}/.ipynb_checkpoints/0.png", picture()) for split in ("train", "test")),
        ("train/cat/.DS_Store", b"\0\0\0\1Bud1"), ("train/cat/._000.png", b"\0\5\x16\7"),
        ("__MACOSX/train/cat/000.png", b"\0\5\x16\7"),
    ]  # fmt: skip
    found, _ = read(tar(tmp_path / "a.tar", [*base(), *hidden]))
    assert found["classes"] == 2
    assert found["left"][HIDDEN]["files"] == 5


@both
def test_the_last_member_of_a_name_wins_as_tar_has_it(tmp_path: Path, read: Reader):
    newer = [("train/cat/000.png", picture(250)), ("train/cat/000.png", picture(60))]
    found, _ = read(tar(tmp_path / "a.tar", [*base(), *newer]))
    assert found["images"] == {"train": 34, "val": 6, "test": 16}
    assert found["left"][REPLACED] == {"files": 2, "example": "train/cat/000.png"}


@both
def test_images_elsewhere_are_counted(tmp_path: Path, read: Reader):
    more = [("extra/cat/0.png", picture()), ("train/cat/deeper/0.png", picture())]
    found, _ = read(tar(tmp_path / "a.tar", [*base(), *more]))
    assert found["left"][ELSEWHERE] == {"files": 2, "example": "extra/cat/0.png"}


@both
def test_images_of_nothing_but_equal_pixels_are_counted(tmp_path: Path, read: Reader):
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (255, 255, 255)).save(out, "PNG")
    items = [(name, out.getvalue() if "dog/00" in name else content) for name, content in base()]
    found, _ = read(tar(tmp_path / "a.tar", items))
    assert found["all_pixels_equal"] == 18
    assert "18 images whose pixels are all equal" in account.said(found)


@both
def test_a_plain_zip_is_read_with_names_in_utf8(tmp_path: Path, read: Reader):
    items = [(name.replace("cat", "猫"), content) for name, content in base()]
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(items))
    found, _ = read(path)
    assert [line["class"] for line in found["by_class"]] == ["dog", "猫"]


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "La", "RGBa",
         "LAB", "I;16", "I;16B", "I;16L", "I", "F"]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_is_shown_as_it_is_or_refused(mode: str):
    """Never a silent picture of nothing but white or black."""
    grey = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    if mode.startswith("I;16"):
        wide = grey.astype(np.uint16) * 257
        image = Image.frombytes(
            mode, (64, 64), wide.astype(">u2" if mode[-1] == "B" else "<u2").tobytes()
        )
    else:
        step = {"PA": "P", "La": "LA", "RGBa": "RGBA"}.get(mode, "RGB" if mode in ("HSV", "YCbCr", "CMYK", "RGBX") else "L")  # fmt: skip
        try:
            image = Image.fromarray(grey).convert(step).convert(mode)
        except ValueError:
            image = Image.new(mode, (64, 64))
    try:
        shown = np.asarray(to_rgb(image), dtype=float)
    except ValueError:
        assert mode in ("I", "F", "La", "RGBa", "LAB")
        return
    assert shown.shape == (64, 64, 3)
    least = 0.5 if mode == "1" else 0.85  # black and white dots
    assert np.corrcoef(shown.mean(axis=2).ravel(), grey.ravel())[0, 1] > least
    assert shown.max() > 200
    assert shown.min() < 60
