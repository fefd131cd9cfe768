"""`make study` goes on after DVC was killed at any moment."""

from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from infra.local.make_study import set_torn_lock_aside
from tests.conftest import REPO


def dvc_reads(content: bytes) -> bool:
    """Tells whether DVC accepts a dvc.lock."""
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(content, Loader=yaml.CSafeLoader))
    except (yaml.YAMLError, Invalid):
        return False
    return True


def test_a_lock_that_was_cut_off_is_set_aside_where_dvc_cannot_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = (REPO / "dvc.lock").read_bytes()[:20_000].rpartition(b"\n  ")[0]  # some stages
    lock, torn = tmp_path / "dvc.lock", tmp_path / "dvc.lock.torn"
    set_torn_lock_aside(lock)  # none is there
    found = set()
    for length in (0, *range(1, len(whole), len(whole) // 150)):
        lock.write_bytes(whole[:length])
        set_torn_lock_aside(lock)
        found.add(is_kept := lock.exists())
        assert not is_kept or dvc_reads(whole[:length]), whole[:length][-200:]
        assert ("moved to" in capsys.readouterr().err) == (not is_kept)
        if not is_kept:
            assert torn.read_bytes() == whole[:length]
    assert found == {True, False}
    lock.write_bytes(whole)
    set_torn_lock_aside(lock)
    assert lock.read_bytes() == whole
