"""What goes into which shard, and what an index knows of it."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from pipeline.data import dataset
from pipeline.data.sources import listing, packing
from pipeline.data.sources.listing import Entry
from pipeline.data.sources.packing import Packed, Piece
from pipeline.errors import DataError
from tests.photographs import CLASSES, data, images, listed, prepared, tar


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return images(30, 8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]) -> Path:
    return tar(tmp_path_factory.mktemp("photos") / "photos.tar", contents)


def packed_by(pieces: list[Piece], **changes: object) -> list[tuple[bytes, Packed]]:
    return [packing.pack(piece, data(**changes), "key", Entry.read) for piece in pieces]


def test_every_image_is_in_one_shard_with_its_bytes_label_and_id(
    archive: Path, contents: dict[str, bytes]
):
    found = listed(archive)
    pieces = packing.plan(data(), found)
    seen = []
    for piece, (content, packed) in zip(pieces, packed_by(pieces), strict=True):
        table = pa.ipc.open_file(io.BytesIO(content)).read_all().to_pylist()
        assert packed.shard.images == len(table) == len(piece.entries)
        for row, id_ in zip(table, packed.ids, strict=True):
            folder = "val" if piece.split == "test" else "train"
            name = f"{folder}/{CLASSES[row['label']]}/{row['name']}"
            assert row["image"] == contents[name]
            part = found.test if piece.split == "test" else found.train
            assert part[id_].name == row["name"] and row["id"] == id_
            seen.append(name)
    assert sorted(seen) == sorted(contents)
    assert sum(len(piece.ids) for piece in pieces if piece.split == "val") == 10


def test_training_shards_mix_the_classes(archive: Path):
    first = packing.plan(data(shard_mb=0.05), listed(archive))[0]
    assert first.split == "train" and set(first.labels) == {0, 1}


def test_shards_have_about_the_size_that_was_asked_for(archive: Path):
    sizes = [
        sum(entry.length for entry in piece.entries)
        for piece in packing.plan(data(), listed(archive))
    ]
    assert max(sizes) <= 20_000
    assert np.median(sizes) > 15_000


def test_packing_is_the_same_every_time_and_pieces_travel_as_lines(archive: Path):
    pieces = packing.plan(data(), listed(archive))
    assert [Piece.from_json(piece.to_json()) for piece in pieces] == pieces
    (content, packed), (again, _) = (packed_by(pieces[:1])[0] for _ in range(2))
    assert content == again
    assert Packed.parse(packed.tensors()).tensors() == packed.tensors()


def test_the_key_is_of_bytes_and_recipe(archive: Path):
    assert packing.key_of(data(), "a") == packing.key_of(
        data(shuffle_shards=9, archive="b.tar"), "a"
    )
    for changed in (data(shard_mb=1), data(val_images=9), data(shorter_side_px=9, jpeg_quality=9)):
        assert packing.key_of(changed, "a") != packing.key_of(data(), "a")
    assert packing.key_of(data(), "b") != packing.key_of(data(), "a")


def test_the_same_images_are_the_same_data_from_wherever_they_come(archive: Path, tmp_path: Path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "folder", filter="data")
    found = []
    for number, entries in enumerate(
        (listing.in_tar(archive), listing.in_folder(tmp_path / "folder"))
    ):
        pieces = packing.plan(data(), listing.of_folders(entries, data(), "x"))
        packed = [packing.pack(piece, data(), f"key {number}", Entry.read)[1] for piece in pieces]
        dataset.save(packing.index(data(), CLASSES, pieces, packed), tmp_path / "a", tmp_path / "d")
        found.append(dataset.load(tmp_path / "a"))
    assert found[0].digest == found[1].digest
    assert [{shard.key for shard in one.train.images.shards} for one in found] == [
        {"key 0"},
        {"key 1"},
    ]


def test_the_index_has_sizes_mean_and_colours(archive: Path, contents: dict, tmp_path: Path):
    pieces = packing.plan(data(), listed(archive))
    index = packing.index(data(), CLASSES, pieces, [packed for _, packed in packed_by(pieces)])
    dataset.save(index, tmp_path / "a", tmp_path / "digest.json", oddities={"not_rgb": 0})
    loaded = dataset.load(tmp_path / "a")
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (50, 10, 16)
    assert loaded.train.images.together == 3
    with Image.open(io.BytesIO(contents[f"val/china/{listed(archive).test[0].name}"])) as image:
        assert loaded.test.images.sizes[0].tolist() == [image.height, image.width]
    squares = []
    for place in loaded.train.ids.tolist():
        entry = listed(archive).train[place]
        with Image.open(io.BytesIO(entry.read())) as image:
            side = min(image.size)
            box = ((image.width - side) / 2, (image.height - side) / 2)
            squares.append(
                np.asarray(image.resize((64, 64), 2, box=(*box, box[0] + side, box[1] + side)))
            )
    mean = np.stack(squares).astype(np.float64).mean(axis=0)
    assert (
        np.abs(loaded.mean.numpy() - mean).mean() < 1
    )  # these are small: none was decoded at a fraction
    pixels = np.stack(squares).reshape(-1, 3)
    covariance = (loaded.colour @ loaded.colour.T).numpy()
    assert covariance == pytest.approx(np.cov(pixels.T, bias=True), rel=0.05)


def test_an_image_that_does_not_decode_stops_packing_unless_allowed(tmp_path: Path):
    contents = images(12, 4)
    broken = "train/china/china_0003.JPEG"
    contents[broken] = contents[broken][:300]
    pieces = packing.plan(data(), listed(tar(tmp_path / "broken.tar", contents)))
    packed = [packed for _, packed in packed_by(pieces)]
    with pytest.raises(
        DataError, match=r"1 images do not decode.*\n.*train/china/china_0003\.JPEG"
    ):
        packing.index(data(), CLASSES, pieces, packed)
    index = packing.index(data(undecodable_images=1), CLASSES, pieces, packed)
    counts = [len(index[f"{split}_labels"]) for split in dataset.SPLITS]
    assert sum(counts) == 31
    assert packing.oddities(packed)["undecodable"] == 1


def test_too_many_validation_images_are_refused(archive: Path):
    with pytest.raises(DataError, match=r"data\.val_images 60"):
        packing.plan(data(val_images=60), listed(archive))


# --- listings -----------------------------------------------------------------------------------


def test_a_folder_and_its_tar_list_the_same(tmp_path: Path, contents: dict, archive: Path):
    for name, content in contents.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    folder = listing.of_folders(listing.in_folder(tmp_path / "photos"), data(), "photos")
    of_tar = listed(archive)
    assert [e.name for e in folder.train] == [e.name for e in of_tar.train]
    assert [e.read() for e in folder.test] == [e.read() for e in of_tar.test]


def test_a_compressed_archive_is_rewritten_once(tmp_path: Path, contents: dict):
    plain = listing.plain_tar(tar(tmp_path / "photos.tar.gz", contents))
    assert plain == listing.plain_tar(tmp_path / "photos.tar.gz") != tmp_path / "photos.tar.gz"
    assert listing.plain_tar(plain) == plain
    assert {e.read() for e in listed(plain).test} <= set(contents.values())


def test_a_class_that_one_split_lacks_is_named(tmp_path: Path, contents: dict):
    lacking = {n: c for n, c in contents.items() if not n.startswith("val/china")}
    with pytest.raises(DataError, match="the test split has no image of china"):
        listed(tar(tmp_path / "photos.tar", lacking))


def test_what_is_no_tar_is_told(tmp_path: Path):
    (tmp_path / "none.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match="not a complete tar archive"):
        list(listing.in_tar(tmp_path / "none.tar"))


def official(folder: Path, contents: dict[str, bytes]) -> tuple[Path, Path, Path]:
    """Returns archives as ImageNet's are: a tar of tars, a flat tar, and a development kit."""
    ids = {"n02": "china", "n01": "flower"}
    inner = {}
    for wnid, label in ids.items():
        some = {
            f"{wnid}_{number}.JPEG": content
            for number, (name, content) in enumerate(contents.items())
            if name.startswith(f"train/{label}/")
        }
        inner[f"{wnid}.tar"] = tar(folder / f"{wnid}.tar", some).read_bytes()
    train = tar(folder / "ILSVRC2012_img_train.tar", inner)
    tests = [(name.split("/")[1], c) for name, c in contents.items() if name.startswith("val/")]
    flat = {f"ILSVRC2012_val_{n:08d}.JPEG": c for n, (_, c) in enumerate(tests, start=1)}
    validation = tar(folder / "ILSVRC2012_img_val.tar", flat)
    numbers = {"china": 2, "flower": 1}
    meta = io.BytesIO()
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    savemat(meta, {"synsets": np.array([(2, "n02"), (1, "n01")], dtype=kinds)})
    truth = "".join(f"{numbers[label]}\n" for label, _ in tests).encode()
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth,
    }
    return train, validation, tar(folder / "ILSVRC2012_devkit_t12.tar.gz", kit)


def test_imagenets_archives_are_listed(tmp_path: Path, contents: dict[str, bytes]):
    found = listing.of_imagenet(*official(tmp_path, contents))
    assert found.classes == ("n01", "n02")
    assert (len(found.train), len(found.test)) == (60, 16)
    for label, name in (("n01", "flower"), ("n02", "china")):
        for part, split in ((found.train, "train"), (found.test, "val")):
            wanted = {c for n, c in contents.items() if n.startswith(f"{split}/{name}/")}
            assert {entry.read() for entry in part if entry.label == label} == wanted


def test_a_development_kit_without_its_files_is_told(tmp_path: Path, contents: dict[str, bytes]):
    train, validation, _ = official(tmp_path, contents)
    kit = tar(tmp_path / "kit.tar.gz", {"a/meta.mat": b"nothing"})
    with pytest.raises(DataError, match="development kit"):
        listing.of_imagenet(train, validation, kit)


def test_a_photograph_is_found_in_its_shard(tmp_path: Path):
    split = prepared(tmp_path, 30, 8).train
    entries = listed(tmp_path / "photos.tar").train
    found = [split.images.content(place) for place in range(len(split))]
    assert found == [entries[id_].read() for id_ in split.ids.tolist()]
    places = [split.images.places_in(window) for window in split.images.windows()]
    assert torch.equal(torch.cat(places), torch.arange(50))


def test_a_class_that_loses_all_its_images_is_named(tmp_path: Path):
    contents = images(12, 1)
    broken = "val/china/china_0000.JPEG"
    contents[broken] = contents[broken][:200]
    pieces = packing.plan(data(), listed(tar(tmp_path / "broken.tar", contents)))
    packed = [packed for _, packed in packed_by(pieces)]
    with pytest.raises(DataError, match="no image of china is left in the test split"):
        packing.index(data(undecodable_images=1), CLASSES, pieces, packed)


def test_a_link_in_a_tar_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        member = tarfile.TarInfo("train/china/a.JPEG")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match="is a link or a device"):
        listed(tmp_path / "links.tar")
