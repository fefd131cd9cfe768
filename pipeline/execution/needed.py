"""What branches, tags and working folders need of what is on S3: read from the files that Git has of them."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import paths
from pipeline.errors import ResourceError
from pipeline.files import exclusively
from pipeline.training.identity import KEY_LENGTH

LOCK = Path("dvc.lock")
RUNS = Path("runs")
STASH = "refs/stash"
PATIENCE_S = 300.0  # for Git, which asks remotes
ANY = "any"  # a packing whose key an earlier version did not note
SEARCH = re.compile(rf'"search": *"([0-9a-f]{{{KEY_LENGTH}}})"')


@dataclass(frozen=True)
class Needs:
    """MD5 of what DVC stores (of a folder: `<md5>.dir`), trainings by key and instance, other keys."""

    md5: set[str] = field(default_factory=set)
    trainings: set[tuple[str, int]] = field(default_factory=set)
    searches: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)
    packings: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, documents: Iterator[tuple[Path, bytes]]) -> Self:
        """Returns what documents need; raises ResourceError for one that cannot be read."""
        found = cls()
        for path, content in documents:
            try:
                found._add(path, content)
            except (YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ResourceError(
                    f"{path}, of some branch, tag or clone, cannot be read ({error!r}), so what it needs is "
                    "unknown: mend it there"
                ) from error
        return found

    def _add(self, path: Path, content: bytes) -> None:
        if path == LOCK:
            lock = YAML(typ="safe", pure=True).load(content.decode())
            self.md5.update(md5 for _, md5 in outputs(lock or {}))
            return
        if path == paths.REPORT:  # of whatever version: the keys of its searches
            self.searches.update(SEARCH.findall(content.decode()))
            return
        said = json.loads(content)
        if path.name == paths.FACTS:
            self.trainings.add((said["run_key"], said.get("instance", 1)))
        elif path == paths.DIGEST:
            self.data.add(said["digest"])
            if shards := said.get("shards"):
                self.packings.add(shards.get("key", ANY))


def outputs(lock: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields path and MD5 (of a folder: `<md5>.dir`) of the outputs in a dvc.lock."""
    for stage in lock.get("stages", {}).values():
        yield from ((out["path"], out["md5"]) for out in stage.get("outs", ()) if "md5" in out)


def while_dvc_waits(clone: Path) -> AbstractContextManager[None]:
    """Holds DVC's own lock of a clone, which `dvc repro` gives up while a stage works.

    Raises BusyError if DVC does not give it up.
    """
    place = clone / ".dvc" / "tmp"
    return exclusively(place / "lock", f"DVC in {clone}") if place.exists() else nullcontext()


def locked_outputs(clone: Path) -> bytes:
    """Returns a clone's dvc.lock, b"" if it has none; never half of one that DVC is writing."""
    with while_dvc_waits(clone):
        return (clone / LOCK).read_bytes() if (clone / LOCK).exists() else b""


def in_folder(clone: Path) -> Iterator[tuple[Path, bytes]]:
    """Yields the documents of a clone's working folder that say what it needs."""
    yield LOCK, locked_outputs(clone)
    for path in (paths.DIGEST, paths.REPORT):
        if (clone / path).exists():
            yield path, (clone / path).read_bytes()
    for found in sorted(clone.glob(f"{RUNS}/*/{paths.FACTS}")):
        yield found.relative_to(clone), found.read_bytes()


def in_git(clone: Path) -> Iterator[tuple[Path, bytes]]:
    """Yields those of the last commits of all branches, tags and stashes of a clone, and of HEAD."""
    blobs = dict[str, Path]()
    for commit in _commits(clone):
        wanted = [str(path) for path in (LOCK, paths.DIGEST, paths.REPORT, RUNS)]
        for line in _git(clone, "ls-tree", "-r", "-z", commit, "--", *wanted).split("\0"):
            facts, _, name = line.partition("\t")
            path = Path(name)
            if name and (path.parts[0] != str(RUNS) or path.name == paths.FACTS):
                blobs[facts.split()[2]] = path
    for blob, path in blobs.items():
        yield path, _git(clone, "cat-file", "blob", blob).encode()


def _commits(clone: Path) -> list[str]:
    found = _git(clone, "for-each-ref", "--format=%(objectname)").split()
    if _git(clone, "for-each-ref", STASH):
        # all of them, each with its parents: what was in the index, and what was not in Git
        found += _git(clone, "log", "--walk-reflogs", "--format=%H %P", STASH).split()
    peeled = (_git(clone, "rev-parse", "-q", "--verify", f"{one}^{{commit}}", ok=(0, 1, 128))
              for one in dict.fromkeys([*found, "HEAD"]))  # fmt: skip
    return list(dict.fromkeys(one.strip() for one in peeled if one))  # without tags of files


def fetch(clone: Path) -> None:
    """Fetches all branches and tags of all remotes, whatever the clone usually fetches of them.

    Raises ResourceError if a remote does not answer.
    """
    for remote in _git(clone, "remote").split():
        branches = f"+refs/heads/*:refs/remotes/{remote}/*"
        tags = f"+refs/tags/*:refs/study/{remote}/*"  # may differ from the clone's own of that name
        _git(clone, "fetch", "--quiet", "--no-tags", remote, branches, tags)


def _git(clone: Path, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(clone), *arguments], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=PATIENCE_S,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},  # of a remote that wants a password
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ResourceError(
            f"git {arguments[0]} in {clone} has not ended within {PATIENCE_S:.0f} s: what branches and tags need is "
            "unknown"
        ) from None
    if done.returncode not in ok:
        raise ResourceError(
            f"git {arguments[0]} in {clone}: {done.stderr.strip()}: what branches and tags need is unknown"
        )
    return done.stdout if done.returncode == 0 else ""
