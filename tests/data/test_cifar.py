"""CIFAR-10's official format, made here in small: the layout and pickles of the archive."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.sources import cifar10
from pipeline.errors import DataError

CLASSES = [b"airplane", b"automobile", b"bird"]


def archive(path: Path, *, count: int = 6, protocol: int = 2, **replaced: object) -> Path:
    rng = np.random.default_rng(0)
    files: dict[str, object] = {"batches.meta": {b"label_names": CLASSES, b"num_vis": 3072}}
    for name in (*cifar10.TRAIN_BATCHES, cifar10.TEST_BATCH):
        files[name] = {
            b"batch_label": name.encode(),
            b"labels": [int(x) for x in rng.integers(0, 3, count)],
            b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            b"filenames": [b"x.png"] * count,
        }
    files.update(replaced)
    with tarfile.open(path, "w:gz") as tar:
        for name, value in files.items():
            if value is None:
                continue
            content = value if isinstance(value, bytes) else pickle.dumps(value, protocol)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_official_layout_is_read(tmp_path: Path, protocol: int):
    images = cifar10.read(archive(tmp_path / "a", protocol=protocol))
    assert images.classes == ("airplane", "automobile", "bird")
    assert images.train.images.shape == (30, 32, 32, 3)
    assert images.test is not None
    assert images.test.images.shape == (6, 32, 32, 3)


def test_planes_become_channels(tmp_path: Path):
    data = np.zeros((1, 3072), dtype=np.uint8)
    data[0, :1024], data[0, 1024:2048], data[0, 2048:] = 1, 2, 3
    data[0, 33] = 9  # red, second row, second column
    images = cifar10.read(archive(tmp_path / "a", test_batch={b"labels": [0], b"data": data}))
    assert images.test is not None
    assert images.test.images[0, 0, 0].tolist() == [1, 2, 3]
    assert images.test.images[0, 1, 1].tolist() == [9, 2, 3]


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path):
    evil = {b"labels": [0], b"data": Malicious(f"touch {tmp_path}/owned")}
    with pytest.raises(DataError, match=r"data_batch_2: the pickle asks for posix\.system"):
        cifar10.read(archive(tmp_path / "a", data_batch_2=evil))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "numpy.f2py.os", "codecs.decode"])
def test_nothing_else_is_admitted(name: str):
    with pytest.raises(DataError):
        cifar10.RestrictedUnpickler(io.BytesIO()).find_class(*name.rsplit(".", 1))


def test_an_array_that_claims_to_hold_objects_is_only_noted(tmp_path: Path):
    """Its type's state names a field of objects and denies it: numpy would take bytes for addresses."""

    def called(module: str, name: str, *arguments: bytes) -> bytes:
        return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def dtype(code: str, *state: bytes) -> bytes:
        return (
            called("numpy", "dtype", text(code), b"\x89", b"\x88") + b"(" + b"".join(state) + b"tb"
        )

    objects = dtype("O8", number(3), text("|"), b"NNN", number(-1), number(-1), number(63))
    fields = b"(" + text("a") + b"(" + objects + number(0) + b"t" + b"d"
    named = b"(" + text("a") + b"t"
    evil = dtype("V8", number(3), text("|"), b"N", named, fields, number(8), number(1), number(0))
    address = b"B" + (8).to_bytes(4, "little") + b"A" * 8
    array = called(
        "numpy._core.numeric", "_frombuffer", address, evil, b"(" + number(1) + b"t", text("C")
    )
    content = b"\x80\x03(" + text("labels") + array + text("data") + array + b"d."
    with pytest.raises(DataError, match="no usable data and labels"):
        cifar10.read(archive(tmp_path / "a", data_batch_1=content))
    content = b"\x80\x03(" + text("labels") + b"(" + number(0) + b"l" + text("data") + array + b"d."
    with pytest.raises(DataError, match=r"data is V8 \(1,\), wanted uint8"):
        cifar10.read(archive(tmp_path / "a", data_batch_1=content))


def test_a_missing_batch_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="has no data_batch_3"):
        cifar10.read(archive(tmp_path / "a", data_batch_3=None))


def test_a_damaged_pickle_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="data_batch_1: not a readable pickle"):
        cifar10.read(archive(tmp_path / "a", data_batch_1=b"\x80\x02}q\x00(X"))


def test_labels_must_be_classes(tmp_path: Path):
    bad = {b"labels": [7], b"data": np.zeros((1, 3072), np.uint8)}
    with pytest.raises(DataError, match=r"labels must lie in 0\.\.2"):
        cifar10.read(archive(tmp_path / "a", data_batch_1=bad))


def test_pixels_must_fit_the_labels(tmp_path: Path):
    bad = {b"labels": [1, 2], b"data": np.zeros((1, 3072), np.uint8)}
    with pytest.raises(DataError, match=r"wanted uint8 \(2, 3072\)"):
        cifar10.read(archive(tmp_path / "a", data_batch_1=bad))
