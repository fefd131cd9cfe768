"""Writes shards of photographs: Arrow files that pyarrow, pandas or polars can read (docs/adr/0010)."""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.data.feeding.shards import Shard

SCHEMA = pa.schema(
    [("image", pa.binary()), ("label", pa.int64()), ("id", pa.int64()), ("name", pa.string())]
)


def encode(
    images: Sequence[bytes], labels: Iterable[int], ids: Iterable[int], names: Iterable[str]
) -> bytes:
    """Returns a shard's bytes; the same arguments give the same bytes."""
    table = pa.table([list(images), list(labels), list(ids), list(names)], schema=SCHEMA)
    out = io.BytesIO()
    with pa.ipc.new_file(out, SCHEMA) as writer:
        writer.write_table(table, max_chunksize=max(1, len(images)))
    return out.getvalue()


def sha256(content: bytes) -> str:
    """Returns the sha256 of bytes as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def table_of(shards: Iterable[Shard]) -> NDArray[np.uint8]:
    """Returns shards as JSON for a data set's index, which holds the key of their packing only once."""
    lines = [asdict(shard) for shard in shards]
    return as_bytes(
        json.dumps([{name: line[name] for name in line if name != "key"} for line in lines])
    )


def as_bytes(text: str) -> NDArray[np.uint8]:
    """Returns a text's UTF-8 bytes as an array."""
    return np.frombuffer(text.encode(), dtype=np.uint8)
