"""What `make fsck` says of a clone's results that are not on S3."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from pipeline.commands import fsck
from pipeline.storage.audit import dvc_key
from pipeline.storage.layout import project


def test_results_are_on_s3_in_the_cache_in_git_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert fsck.unpushed({}) == ([], [])
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, check=True)
    md5 = {name: hashlib.md5(name.encode()).hexdigest() for name in ("s3", "cache", "git", "lost")}
    outs = "".join(f"    - {{path: {name}, md5: {one}}}\n" for name, one in md5.items())
    Path("dvc.lock").write_text(f"schema: '2.0'\nstages:\n  a:\n    outs:\n{outs}")
    cached = Path(".dvc/cache/files/md5") / md5["cache"][:2] / md5["cache"][2:]
    cached.parent.mkdir(parents=True)
    cached.touch()
    Path("git").touch()
    assert fsck.unpushed({f"{project()}/{dvc_key(md5['s3'])}": 1}) == (["cache"], ["lost"])
