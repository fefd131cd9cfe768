"""`make attest`: does the present source compute what the last attested one computes, bit for bit?

Both train a golden set of tiny recipes on this machine; the older source is taken from Git. If all
results are equal, a file in pipeline/attested/ says so, and run keys stay those of the older source;
commit the file with the change. If a recipe differs, it is named, and every result is stale: that is
right if the change was meant to change results (`make attest BEGIN=1` then begins anew with the present
source).

    python -m infra.attest [--begin | --check]

Half of the file is the golden recipes, which a reader wants beside what compares them.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline import attested
from pipeline.errors import ParamsError, StudyError
from pipeline.files import write_json
from pipeline.params import Row, canonical_sha256
from pipeline.training.identity import source_of
from pipeline.training.schedule import Schedule

ROOT = Path(__file__).parents[1]
GOLDEN = "pipeline.training.golden"
Recipe = dict[str, Any]
SMALL = {"images": 96, "classes": 4, "size_px": 16, "sharded": False}
ROW: dict[str, Any] = {
    "network": {"family": "cifar", "block": "basic", "depth": 8, "shortcut": "A"},
    "schedule": "golden.yaml",
    "learning_rate_factor": 1.0,
    "optimizer": {"momentum": 0.9, "weight_decay": 1e-4},
    "label_smoothing": 0.0,
    "augmentation": {"kind": "pad_crop", "pad_px": 2, "mirror": True},
    "global_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "activation_checkpointing": False,
    "averaged_batch_norm_batches": 0,
    "seed": 1,
    "precision": "float32",
    "threads": 1,
    "workers": 1,
    "report_every_updates": 4,
}
NETWORKS = {
    "plain": {"family": "cifar", "block": "plain", "depth": 14, "shortcut": "none"},
    "option A": ROW["network"],
    "option B": {"family": "cifar", "block": "basic", "depth": 8, "shortcut": "B"},
    "option C": {"family": "cifar", "block": "basic", "depth": 8, "shortcut": "C"},
    "imagenet": {"family": "imagenet", "block": "basic", "depth": 18, "shortcut": "A"},
    "imagenet plain": {"family": "imagenet", "block": "plain", "depth": 18, "shortcut": "none"},
    "torchvision": {"family": "torchvision", "name": "shufflenet_v2_x0_5", "arguments": {}},
    "bottleneck": {"family": "imagenet", "block": "bottleneck", "depth": 50, "shortcut": "B"},
}
FAMILIES = {network["family"]: network for network in NETWORKS.values()}  # one of each
AUGMENTATIONS = {
    "padded": ROW["augmentation"],
    "scales": {
        "kind": "scale_crop", "shorter_side_px": {"low": 18, "high": 24}, "crop_px": 16,
        "mirror": True, "colour_sd": 0.1,
    },
    "areas": {
        "kind": "random_resized_crop", "crop_px": 12, "area_fraction": {"low": 0.3, "high": 1.0},
        "aspect_ratio": {"low": 0.75, "high": 1.33}, "mirror": True,
    },
}  # fmt: skip
SCHEDULES: dict[str, dict[str, Any]] = {
    "steps": {"shape": "step", "base_lr": 0.05, "drops": [5, 9]},
    "cosine": {"shape": "cosine", "base_lr": 0.05},
    "plateaus": {
        "shape": "plateau", "base_lr": 0.05, "max_drops": 2, "patience_reports": 1,
        "min_gain_pct": 5.0,
    },
}  # fmt: skip
WARM_UPS = {
    "no warm-up": None,
    "linear": {"kind": "linear", "updates": 5, "start_lr": 0.01},
    "constant": {"kind": "constant", "updates": 5, "start_lr": 0.01},
    "until an error": {"kind": "until_error", "train_error_pct": 70.0, "start_lr": 0.01},
}


def schedule(shape: str = "cosine", warm_up: str = "no warm-up", updates: int = 12) -> Recipe:
    """Returns a schedule's document."""
    return {**SCHEDULES[shape], "total_updates": updates, "warmup": WARM_UPS[warm_up]}


def recipe(
    *, data: Recipe = SMALL, plan: Recipe | None = None, stops: tuple[int, ...] = (), **row: Any
) -> Recipe:
    """Returns the default recipe with the given changes."""
    whole, plan = {**ROW, **row}, plan or schedule()
    workers = whole["workers"]
    return {"row": whole, "schedule": plan, "data": data, "workers": workers, "stops": list(stops)}


EXTRAS = {
    "cutout": {"kind": "cutout", "side_px": 5},
    "erasing": {
        "kind": "erasing", "probability": 0.5, "area_fraction": {"low": 0.02, "high": 0.4},
        "aspect_ratio": {"low": 0.3, "high": 3.3},
    },
}  # fmt: skip


def recipes() -> dict[str, Recipe]:
    """Returns the golden set, in which every kind occurs at least once."""
    sharded = {**SMALL, "sharded": True, "size_px": 24}
    short = schedule(updates=4)
    found = {name: recipe(network=network) for name, network in list(NETWORKS.items())[:4]}
    found |= {
        name: recipe(network=network, plan=short, report_every_updates=2)
        for name, network in list(NETWORKS.items())[4:]
    }
    for name, augmentation in AUGMENTATIONS.items():
        found[name] = recipe(augmentation=augmentation, seed=2)
        if augmentation["kind"] != "pad_crop":
            found[f"{name}, in shards"] = recipe(augmentation=augmentation, data=sharded)
    found |= {shape: recipe(plan=schedule(shape)) for shape in SCHEDULES}
    found |= {name: recipe(plan=schedule("cosine", name)) for name in WARM_UPS}
    return found | {
        "bfloat16": recipe(precision="bfloat16"),
        "two threads": recipe(threads=2),
        "smoothed labels": recipe(label_smoothing=0.1),
        "accumulated gradients": recipe(gradient_accumulation_steps=2),
        "checkpointed activations": recipe(activation_checkpointing=True),
        "averaged statistics": recipe(averaged_batch_norm_batches=3),
        "another batch": recipe(global_batch_size=24),
        "no decay": recipe(optimizer={"momentum": 0.0, "weight_decay": 0.0}),
        "half the rate": recipe(learning_rate_factor=0.5),
        "resumed": recipe(stops=(4, 8), plan=schedule("plateaus")),
        "resumed, in shards": recipe(
            stops=(4,), augmentation=AUGMENTATIONS["scales"], data=sharded
        ),
        **{name: recipe(extras=[extra]) for name, extra in EXTRAS.items()},
        "extras": recipe(extras=list(EXTRAS.values())),
        "two workers": recipe(workers=2, plan=schedule("plateaus"), averaged_batch_norm_batches=2),
        "two workers, resumed": recipe(workers=2, stops=(8,)),
    }


def combinations() -> Iterator[Recipe]:
    """Yields a row and a schedule for each combination of kinds, each of which has its own source."""
    extras = [[], *([extra] for extra in EXTRAS.values()), list(EXTRAS.values())]
    for network, augmentation, some, shape in product(
        FAMILIES.values(), AUGMENTATIONS.values(), extras, SCHEDULES
    ):
        row = {**ROW, "network": network, "augmentation": augmentation}
        yield {"row": row | ({"extras": some} if some else {}), "schedule": schedule(shape)}


def asked(tree: Path, question: dict[str, Any], what: str) -> dict[str, Any]:
    """Returns the answer that the source in a folder gives to a question."""
    print(f"{what}:", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", GOLDEN], cwd=tree, input=json.dumps(question), text=True,
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StudyError(f"{what}: {GOLDEN} ended with status {done.returncode}: see above")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def git(*words: str) -> bytes:
    """Returns what a Git command prints in this repository; raises StudyError if it fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise StudyError(
            f"git {' '.join(words[:2])} in {ROOT}: {done.stderr.decode(errors='replace').strip()}: changed source is "
            "compared with what a commit has: wanted a clone (`git init`, and a commit, in an unpacked archive)"
        )
    return done.stdout


def last_attested(device: str) -> str:
    """Returns the last commit that added an attestation on a device, or a beginning.

    Raises ParamsError if there is none.
    """
    folder = attested.FOLDER.relative_to(ROOT).as_posix()
    files = (f"{folder}/*.json",)
    added = ("diff-tree", "--root", "-m", "--no-commit-id", "--name-only", "--diff-filter=AM", "-r")
    for commit in git("log", "--format=%H", "--", *files).decode().split():
        for name in git(*added, commit, "--", *files).decode().split():
            said = json.loads(git("show", f"{commit}:{name}"))
            if said.get("device", device) == device:
                return commit
    raise ParamsError(f"{folder}: no attested source is committed: begin by `make attest BEGIN=1`")


def unpacked(commit: str, folder: Path) -> Path:
    """Unpacks the source of a commit into a folder, and returns the folder."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit, "pipeline"))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def differing(before: Recipe, now: Recipe) -> list[str]:
    """Returns the recipes whose results differ, without those that the older source cannot train."""
    return [
        f"{name}: {mine.get('error') or ' and '.join(what for what in mine if mine[what] != other[what])}"
        for name, mine, other in ((name, now[name], other) for name, other in before.items())
        if "error" not in other and mine != other
    ]


def kinds_of(entry: Recipe) -> set[str]:
    """Returns the names of the kinds that a row and its schedule use."""
    row = entry["row"]
    extras = {f"extra {extra['kind']}" for extra in row.get("extras", ())}
    return extras | {
        f"family {row['network']['family']}",
        f"augmentation {row['augmentation']['kind']}",
        f"schedule {entry['schedule']['shape']}",
    }


def require_compared(equated: Sequence[Recipe], compared: Sequence[Recipe]) -> None:
    """Raises StudyError if a kind would be called equal that no compared recipe has."""
    asked_of, shown = (set().union(*map(kinds_of, some)) for some in (equated, compared))
    if missing := asked_of - shown:
        raise StudyError(
            f"no recipe that was compared has {', '.join(sorted(missing))}: it cannot be called equal: add "
            "one to `recipes`"
        )


def note(equals: dict[str, str | None], more: dict[str, Any]) -> Path:
    """Writes what was found to a file named after the sources; returns its path."""
    named = canonical_sha256([*sorted(equals), more.get("device")])
    path = attested.FOLDER / f"{named[:16]}.json"
    python = sys.version.split()[0]
    write_json(
        path, {"equals": equals, **more, "python": python, "date": time.strftime("%Y-%m-%d")}
    )
    return path


def sources_here() -> list[str]:
    """Returns the digest of the present source for each combination of kinds."""
    adapter: TypeAdapter[Schedule] = TypeAdapter(Schedule)
    return [
        source_of(
            Row(**{**Row.NEUTRAL, **entry["row"]}), adapter.validate_python(entry["schedule"])
        )
        for entry in combinations()
    ]


def begin() -> None:
    """Begins a chain with the present source, if it belongs to none."""
    if not (new := set(sources_here()) - attested.equals().keys()):
        print("the present source is attested already")
        return
    path = note(dict.fromkeys(new), {"against": None})
    print(f"{path.relative_to(ROOT)}: later source will be compared with this one: commit it")


def attest(golden: dict[str, Recipe]) -> None:
    """Compares the present source with the last attested one by the results of golden recipes."""
    from pipeline.models.predict import device  # imports torch, which --check does without

    where = device().type
    commit, known = last_attested(where), attested.equals(where)
    sources = {"recipes": {}, "sources": list(combinations())}
    with tempfile.TemporaryDirectory(prefix="study-attest-") as name:
        older = unpacked(commit, Path(name))
        was = asked(older, sources, f"the source of {commit[:12]}")["sources"]
        if unknown := set(filter(None, was)) - attested.equals().keys():
            raise StudyError(
                f"{commit[:12]}: its source ({min(unknown)[:12]}) is not what was attested there: attest "
                "each change before committing it, and each merge again"
            )
        pairs = list(zip(sources_here(), was, strict=True))
        # a source that was attested before and has come back keeps its keys
        equals = {mine: other for mine, other in pairs if mine not in known and mine != other}
        if not equals:
            print("the present source is attested already")
            return
        question = {"recipes": golden, "sources": []}
        before = asked(older, question, f"the source of {commit[:12]}")
        now = asked(ROOT, question, "the present source")
    if differ := differing(before["results"], now["results"]):
        raise StudyError(
            f"not equal to {commit[:12]} in {len(differ)} of {len(now['results'])} recipes:\n  "
            + "\n  ".join(differ)
            + "\nevery result is stale; if that is intended, `make attest BEGIN=1`"
        )
    compared = [name for name, one in before["results"].items() if "error" not in one]
    require_compared(
        [entry for entry, (_, other) in zip(combinations(), pairs, strict=True) if other],
        [golden[name] for name in compared],
    )
    more = {name: now[name] for name in ("device", "hardware", "torch")}
    more |= {"against": commit, "compared": compared}
    path = note(equals, more)
    print(
        f"{len(compared)} recipes end with the same bits as {commit[:12]}: commit {path.relative_to(ROOT)}"
    )


def require_attested() -> None:
    """Raises StudyError if the present source has not been attested."""
    if set(sources_here()) - attested.equals().keys():
        raise StudyError(
            "the source that computes a training is not attested: run `make attest`, and commit what it "
            "writes"
        )


if __name__ == "__main__":
    try:
        if "--check" in sys.argv:
            require_attested()
        elif "--begin" in sys.argv:
            begin()
        else:
            attest(recipes())
    except StudyError as error:
        sys.exit(f"error: {error}")
