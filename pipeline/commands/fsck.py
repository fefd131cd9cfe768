"""`make fsck`: checks every hash and every reference of what the project has on S3; changes nothing."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from infra.local import s3
from pipeline import command
from pipeline.errors import TrackingError
from pipeline.execution.needed import locked_outputs, outputs
from pipeline.progress import Progress
from pipeline.storage.audit import Audit, Fault, dvc_key
from pipeline.storage.layout import project
from pipeline.storage.objects import Storage
from pipeline.tracking import artifacts
from pipeline.tracking.address import PROXIED, tracking_uri
from pipeline.tracking.artifacts import Artifact

SHOWN = 20
PATIENCE_S = 60.0
NEXT = {  # by the first part of what lies below the project's prefix
    "trainings": "`dvc repro` goes on from the last checkpoint that is intact, or trains again",
    "trials": "`dvc repro` goes on from the last checkpoint that is intact, or `make again RUN=tune@<search>`",
    "searches": "`make again RUN=tune@<search>` searches afresh",
    "sets": "delete all below sets/<digest>/; the next training on a cluster uploads it again",
    "shards": "`make again RUN=prepare` packs the photographs again",
    "evaluations": "delete all below evaluations/<key>/; `dvc repro` evaluates again if the scores are lost",
    "dvc": "delete it, then `dvc push` in a clone that has it, or `dvc repro` here",
    "mlflow": "delete its run in MLflow, then `make publish` in the clone whose study it is sends all again",
}


def unpushed(there: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Returns what of this clone's dvc.lock is not on S3: in DVC's cache alone, and nowhere.

    What lies in the working folder and not in the cache is Git's, or was made without DVC.
    """
    lock = YAML(typ="safe", pure=True).load(locked_outputs(Path()).decode()) or {}
    asked = [sys.executable, "-m", "dvc", "cache", "dir"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    cache = Path(said or ".dvc/cache") / "files/md5"
    absent = [
        (path, (cache / md5[:2] / md5[2:]).exists())
        for path, md5 in outputs(lock)
        if f"{project()}/{dvc_key(md5)}" not in there
    ]
    return sorted(path for path, is_here in absent if is_here), sorted(
        path for path, is_here in absent if not is_here and not Path(path).exists()
    )


def copies() -> dict[str, str] | None:
    """Returns the sha256 of MLflow's artifacts by their keys; says if MLflow cannot be asked."""
    try:
        return artifacts.in_bucket()
    except TrackingError as error:
        print(f"warning: {error}: its artifacts are not checked", file=sys.stderr)
        return None


def at_server() -> tuple[list[Fault], bool]:
    """Returns what is wrong with the artifacts at a team's MLflow, and whether all could be looked at."""
    began, looked, is_all = time.monotonic(), list[Artifact](), True
    try:
        for one in artifacts.at_server():
            looked.append(one)  # what was looked at stays, if MLflow stops answering
        took = time.monotonic() - began
        if any(one.fault for one in looked):
            now = artifacts.named_at_server()  # what is published anew meanwhile has another sum
            looked = [one for one in looked if not one.fault or now.get(one.path) == one.sha256]
    except TrackingError as error:
        print(f"warning: {error}: not all of its artifacts are checked", file=sys.stderr)
        took, is_all = time.monotonic() - began, False
    if looked:
        read = sum(one.bytes for one in looked) / 1e6
        print(f"MLflow: {len(looked):,} artifacts, {read:,.0f} MB in {took:.1f} s by its server")
    return [
        Fault(f"{PROXIED}{one.path}", "damaged" if one.read else "missing", one.fault)
        for one in looked
        if one.fault
    ], is_all


def line(fault: Fault, bucket: str) -> str:
    """Returns a fault as a line, with what to do about it."""
    if fault.key.startswith(PROXIED):
        return f"{fault.kind}: {fault.key} at {tracking_uri()}: {fault.why}: {NEXT['mlflow']}"
    what = fault.key.removeprefix(f"{project()}/").split("/")[0]
    do = "" if fault.kind == "orphaned" else f": {NEXT.get(what, 'delete it')}"
    return f"{fault.kind}: s3://{bucket}/{fault.key}: {fault.why}{do}"


def main() -> None:
    """Prints what is damaged, missing or orphaned; ends with status 1 if anything is damaged, missing or not looked at."""
    storage = Storage(at=s3.connect().place, patience_s=PATIENCE_S)
    sums = copies()
    began = time.monotonic()
    audit = Audit(storage, sums or {})
    with Progress("fsck", audit.bytes, "B") as progress:
        faults = audit.faults(progress.advance)
    took = time.monotonic() - began
    if sums and any(fault.key in sums for fault in faults):
        now = copies() or {}  # what is published anew meanwhile has another sum
        faults = [one for one in faults if one.key not in sums or now.get(one.key) == sums[one.key]]
    of_server, all_checked = at_server()
    faults += of_server
    for fault in faults:
        print(line(fault, storage.bucket))
    here, nowhere = unpushed(audit.sizes)
    for what, left in (("on S3 (`dvc push` stores them)", here),
                       ("here or on S3 (`dvc repro` makes them)", nowhere)):  # fmt: skip
        if left:
            some = ", ".join(left[:SHOWN]) + (", …" if len(left) > SHOWN else "")
            print(f"{len(left)} of the results that dvc.lock names are not {what}: {some}")
    count = {
        kind: sum(fault.kind == kind for fault in faults)
        for kind in ("damaged", "missing", "orphaned")
    }
    count["missing"] += len(nowhere)
    print(
        f"{len(audit.sizes):,} objects, {audit.bytes / 1e6:,.0f} MB in {took:.1f} s "
        f"({audit.bytes / 1e6 / took:,.0f} MB/s): "
        + ", ".join(f"{number} {kind}" for kind, number in count.items())
    )
    is_whole = not (count["damaged"] or count["missing"])
    sys.exit(0 if is_whole and all_checked and sums is not None else 1)


if __name__ == "__main__":
    command.main(main)
