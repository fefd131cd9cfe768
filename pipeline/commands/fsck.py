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


def copies(storage: Storage) -> dict[str, str]:
    """Returns the sha256 of MLflow's artifacts by their keys; says if MLflow cannot be asked."""
    try:
        return artifacts.in_bucket()
    except TrackingError as error:
        print(f"warning: {error}: its artifacts are not checked", file=sys.stderr)
        return {}


def at_server() -> list[Fault]:
    """Returns what is wrong with the artifacts at a team's MLflow; says if it cannot be asked."""
    began, count = time.monotonic(), list[int]()
    try:
        found = artifacts.at_server(count.append)
    except TrackingError as error:
        print(f"warning: {error}: its artifacts are not checked", file=sys.stderr)
        return []
    if found:
        took = time.monotonic() - began
        print(
            f"MLflow: {len(found):,} artifacts, {sum(count) / 1e6:,.0f} MB in {took:.1f} s by its server"
        )
    return [
        Fault(
            f"{PROXIED}{path}",
            "damaged" if there else "missing",
            f"sha256 {there}, wanted {wanted}" if there else "MLflow names it",
        )
        for path, wanted, there in found
        if there != wanted
    ]


def line(fault: Fault, bucket: str) -> str:
    """Returns a fault as a line, with what to do about it."""
    if fault.key.startswith(PROXIED):
        return f"{fault.kind}: {fault.key} at {tracking_uri()}: {fault.why}: {NEXT['mlflow']}"
    what = fault.key.removeprefix(f"{project()}/").split("/")[0]
    do = "" if fault.kind == "orphaned" else f": {NEXT.get(what, 'delete it')}"
    return f"{fault.kind}: s3://{bucket}/{fault.key}: {fault.why}{do}"


def main() -> None:
    """Prints what is damaged, missing or orphaned; ends with status 1 if anything is damaged or missing."""
    storage = Storage(at=s3.connect().place, patience_s=PATIENCE_S)
    named_by_mlflow = copies(storage)
    began = time.monotonic()
    audit = Audit(storage, named_by_mlflow)
    with Progress("fsck", audit.bytes, "B") as progress:
        faults = audit.faults(progress.advance)
    took = time.monotonic() - began
    faults += at_server()
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
    print(
        f"{len(audit.sizes):,} objects, {audit.bytes / 1e6:,.0f} MB in {took:.1f} s "
        f"({audit.bytes / 1e6 / took:,.0f} MB/s): "
        + ", ".join(f"{number} {kind}" for kind, number in count.items())
    )
    sys.exit(1 if count["damaged"] or count["missing"] else 0)


if __name__ == "__main__":
    command.main(main)
