"""`make trial-faults`: faults planted one by one, each of which its own folder's tests must catch.

    python -m tests.planted_faults [words of the faults to try]

Each is planted in a copy of the code, where that folder's tests (units and, for the embedded server, its
real services) then run until the first failure. Prints a table; exits with 1 where one is not caught.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[1]


@dataclass(frozen=True)
class Fault:
    """A line of the source, what stands in its place, and whose tests must notice."""

    what: str
    file: str
    right: str
    wrong: str
    tests: str
    """A file of that folder's tests, or some tests in it: what catches it there catches it in the folder."""


F = Fault
FAULTS = (
    # training
    F("gradients are never cleared", "pipeline/training/loop.py",
      "self.optimizer.zero_grad()", "pass", "tests/training/test_run.py -k learns or accumulated"),
    F("pieces of a batch count in full", "pipeline/training/loop.py",
      "loss = loss / self.pieces", "loss = loss * 1", "tests/training/test_run.py -k accumulated_gradients"),
    F("the row's rate factor is forgotten", "pipeline/training/loop.py",
      "state.history) * row.learning_rate_factor", "state.history) * 1", "tests/training/test_run.py -k factor"),
    F("momentum is not restored", "pipeline/training/state.py",
      "named = self.model.named_parameters() if momentum else ()", "named = ()", "tests/training/test_run.py -k same_bits"),
    F("every update is the first one", "pipeline/training/sgd.py",
      "is_first = bool(self.momentum) and not self.momenta", "is_first = bool(self.momentum)", "tests/training/test_sgd.py"),
    F("a damaged checkpoint of an offline machine is used", "pipeline/training/offline.py",
      '!= said["sha256"]', '== ""', "tests/training/test_offline.py -k damaged"),
    F("what other source computed is brought home", "pipeline/commands/bring.py",
      "training.check(checkpoint.facts)", "pass", "tests/training/test_offline.py -k other_source"),
    F("a drop comes one update late", "pipeline/training/schedules/step.py",
      "bisect_right(self.drops, update)", "bisect_right(self.drops, update - 1)", "tests/training/test_schedule.py"),
    F("the error warm-up ends at once", "pipeline/training/schedules/warming.py",
      "over = any(line.train_error_pct < self.train_error_pct for line in history)",
      "over = bool(history)", "tests/training/test_schedule.py"),
    F("averaged statistics are moving ones", "pipeline/training/batch_norm.py",
      "norm.momentum = None", "norm.momentum = 0.1", "tests/training/test_run.py -k averaged_statistics"),
    F("a stranger's checkpoint is taken", "pipeline/training/training.py",
      'if facts.key != self.key or _trained(facts) != self.recipe:', "if False:", "tests/training/test_run.py -k checkpoint_of_another"),
    F("the seed is not in the key", "pipeline/training/identity.py",
      'row.canonical("schedule")', 'row.canonical("schedule", "seed")', "tests/training/test_identity.py"),
    F("timings are part of a history's identity", "pipeline/training/history.py",
      "if name not in TIMINGS", "if name", "tests/training/test_run.py -k timings"),
    F("any captured step is trusted", "pipeline/training/capture.py",
      "MOST_DIFFERENCE = 0.02", "MOST_DIFFERENCE = 1e9", "tests/training/test_capture.py"),
    F("the machine decides the threads", "pipeline/training/run.py",
      "torch.set_num_threads(row.threads)", "pass", "tests/training/test_run.py -k threads"),
    F("each worker keeps its own statistics", "pipeline/training/replicas.py",
      "distributed.broadcast(statistic, src=0)", "pass", "tests/training/test_replicas.py"),
    F("workers that differ go on", "pipeline/training/replicas.py",
      "if strangers:", "if False:", "tests/training/test_replicas.py"),
    # data
    F("sixteen bits are cut off at 255", "pipeline/data/feeding/pixels.py",
      'if image.mode.startswith("I;16"):', "if False:", "tests/data/test_account.py"),
    F("a set that lies twice counts twice", "pipeline/data/sources/choosing.py",
      "if len(self.roots) > 1:", "if False:", "tests/data/test_account.py"),
    F("a tar that ends with a zip is a zip", "pipeline/data/sources/archives.py",
      'is_zip = file.read(4) in (b"PK\\3\\4", b"PK\\5\\6")', "is_zip = zipfile.is_zipfile(path)",
      "tests/data/test_account.py"),
    F("leaked test images are not counted", "pipeline/data/sources/account.py",
      '"test_in_train": int(np.isin(test, train).sum())', '"test_in_train": 0', "tests/data/test_account.py"),
    F("every pass has the same order", "pipeline/data/feeding/batches.py",
      "mix(self._seed, 0, epoch, number)", "mix(self._seed, 0, 0, number)", "tests/data/test_batches.py"),
    F("every update draws the same", "pipeline/data/feeding/batches.py",
      "mix(seed, 1, update)", "mix(seed, 1, 0)", "tests/data/test_batches.py"),
    F("the mirror is never drawn", "pipeline/data/feeding/pad_crop.py",
      "torch.randint(2 if self._recipe.mirror else 1, (count, 1)", "torch.randint(1, (count, 1)",
      "tests/data/test_augment.py"),
    F("planes are read as rows", "pipeline/data/sources/cifar10.py",
      "pixels.reshape(count, 3, SIDE_PX, SIDE_PX).transpose(0, 2, 3, 1)",
      "pixels.reshape(count, SIDE_PX, SIDE_PX, 3)", "tests/data/test_cifar.py"),
    F("the digest is of names alone", "pipeline/data/dataset.py",
      "sha.update(np.ascontiguousarray(array).data)", "pass", "tests/data/test_arrays.py"),
    F("a label may be any number", "pipeline/data/sources/cifar10.py",
      "type(label) is int and 0 <= label < classes", "type(label) is int", "tests/data/test_cifar.py"),
    # storage
    F("an object's bytes are not compared", "pipeline/storage/layout.py",
      "if content is None or sha256(content) != digest:", "if content is None:", "tests/storage/test_storage.py"),
    F("a manifest's bytes are not compared", "pipeline/storage/layout.py",
      'if _sum_of(said) == found["sha256"] and said.get("at", at) == at:', "if True:", "tests/storage/test_storage.py -k wrong_result"),
    F("a manifest copied over another is taken for it", "pipeline/storage/layout.py",
      ' and said.get("at", at) == at', "", "tests/storage/test_audit.py -k copied"),
    F("gc forgets what older stashes need", "pipeline/execution/needed.py",
      'if _git(clone, "for-each-ref", STASH):', "if False:", "tests/commands/test_gc.py -k stash"),
    F("gc deletes what a process works on", "pipeline/commands/gc.py",
      "and f\"{name}/\".split(\"/\")[1] not in at_work", "", "tests/commands/test_gc.py -k works_on_is_kept"),
    F("a model of other data counts as the best", "pipeline/tracking/registry.py",
      " and one.tags.get(DATA) == tags.get(DATA)", "", "tests/tracking/test_registry.py -k other_data"),
    F("a worker that was cut off commits", "pipeline/storage/checkpoints.py",
      "        self._require_last()\n", "", "tests/storage/test_storage.py -k fenced or at_once"),
    F("a manifest's word is taken for the tensors", "pipeline/storage/checkpoints.py",
      "return found if found is not None and found.facts.is_finished else None", "return found",
      "tests/storage/test_storage.py -k judged"),
    F("one checkpoint is kept", "pipeline/storage/checkpoints.py", "KEPT = 2", "KEPT = 1", "tests/storage/test_storage.py"),
    F("the server holds no lock", "infra/local/s3.py", "pass_fds=(lock,)", "pass_fds=()", "tests/storage/test_server.py"),
    F("whoever listens is asked", "infra/local/s3.py",
      "int(line[7]) == os.getuid()", "True", "tests/storage/test_server.py"),
    F("a bucket that another has just made is an error", "pipeline/storage/objects.py",
      'if error.response.get("Error", {}).get("Code") not in MADE_BY_ANOTHER:', "if True:", "tests/storage/test_storage.py -k just_made"),
    F("afresh goes on with what was there", "pipeline/storage/layout.py",
      "new = max(numbers, default=0) + 1", "new = max(numbers, default=1)", "tests/storage/test_storage.py -k instance"),
    # cluster
    F("a rung judges trials by their last report", "pipeline/tuning/halving.py",
      "if (record := self.at(update)) is None:", "if (record := self.history[-1] if self.history else None) is None:",
      "tests/tuning"),
    F("a point depends on how many there are", "pipeline/tuning/halving.py",
      "rng=seed)", "rng=seed + count)", "tests/tuning"),
    F("a pair takes one place", "pipeline/commands/makespan.py",
      "free -= workers", "free -= 1", "tests/commands"),
    F("a drop may lie at the end", "pipeline/tuning/halving.py",
      "min(max(round(f * total_updates), 1), total_updates - 1)", "round(f * total_updates)",
      "tests/tuning"),
    F("a worker may span nodes", "pipeline/cluster/client.py",
      "int(min(shape.get(name, 0.0) / amount + EPSILON", "int(max(shape.get(name, 0.0) / amount + EPSILON",
      "tests/commands"),
    F("memory is not counted", "pipeline/cluster/side_by_side.py",
      "and (seat.memory_bytes <= self._memory or seat.gpus > 0)", "", "tests/cluster"),
    F("the shortest row comes first", "pipeline/cluster/side_by_side.py",
      "return per_image * row.global_batch_size * training.schedule.total_updates / threads",
      "return -per_image * row.global_batch_size * training.schedule.total_updates / threads", "tests/cluster"),
    # evaluation
    F("what is not a number counts as right", "pipeline/evaluation/outcomes.py",
      "if not np.isfinite(probabilities).all():", "if False:", "tests/evaluation/test_scores.py"),
    F("ties count as right", "pipeline/evaluation/outcomes.py",
      "ahead = (probabilities > own[:, None]) | ((probabilities == own[:, None]) & before)",
      "ahead = probabilities > own[:, None]", "tests/evaluation"),
    F("the first member speaks for all", "pipeline/evaluation/averaging.py",
      "return Predictions(some.probabilities + other.probabilities, ", "return Predictions(2 * some.probabilities, ",
      "tests/evaluation"),
    F("members of other images are averaged", "pipeline/evaluation/averaging.py",
      "if not (np.array_equal(some.ids, other.ids) and ", "if False and not (np.array_equal(some.ids, other.ids) and ",
      "tests/evaluation"),
    F("the calibration error has a sign", "pipeline/evaluation/scores.py",
      "np.abs(correct - confidence).sum()", "(correct - confidence).sum()", "tests/evaluation"),
    # report
    F("networks that have not converged prove the paper's claims", "pipeline/report/claims/claim.py",
      "[one for one in networks if one.is_converged]", "list(networks)", "tests/report -k not_converged"),
    F("a curve is flat since the rate fell, and has converged", "pipeline/report/claims/networks.py",
      "_spans(_hot(history), 0.5, 0.75)]", "_spans(history, 0.75, 0.875)]", "tests/report/test_claims.py -k rate_fell"),
    F("Holm's correction is forgotten", "pipeline/report/claims/claim.py",
      "holm(list(tested.values()), ALPHA)", "[p <= ALPHA for p in tested.values()]", "tests/report -k without_any"),
    F("pairs are taken the wrong way around", "pipeline/report/claims/inference.py",
      "for sign in (1, -1))", "for sign in (-1, 1))", "tests/report -k paired"),
    F("1,202 layers are the usual deepest", "pipeline/report/claims/catalogue.py",
      "one.depth != DEEPEST and ", "", "tests/report -k deepest"),
    # comparing and publishing
    F("responses are taken before batch normalization", "pipeline/evaluation/responses.py",
      "layers += [block.bn1, block.bn2]", "layers += [block.conv1, block.conv2]", "tests/evaluation/test_responses.py"),
    F("an image that one member misses is missed by all", "pipeline/report/predicted.py",
      "np.logical_and.reduce(members)", "np.logical_or.reduce(members)", "tests/report/test_page.py -k all_members"),
    F("a claim of one's own is turned around", "pipeline/report/claims/catalogue.py",
      '"own", measure, "below", 0.0 - wanted.by / 100', '"own", measure, "below", wanted.by / 100', "tests/report/test_page.py -k claim"),
    F("nothing differs from a reference", "pipeline/report/reference.py",
      "for one, bad in zip(tested, rejected, strict=True) if bad}", "for one, bad in zip(tested, rejected, strict=True) if False}",
      "tests/report/test_reference.py -k named"),
    F("a reference's seeds are as many as images", "pipeline/report/reference.py",
      "math.sqrt(1 / n + 1 / m)", "math.sqrt(1 / images)", "tests/report/test_reference.py -k rarely"),
    F("who trains waits for MLflow", "pipeline/tracking/sending.py",
      "self._thread.join(WAIT_S)", "self._process.wait()", "tests/tracking/test_sending.py -k waits_for_no"),
    F("a job on a cluster is called killed", "pipeline/tracking/sending.py",
      "self._seen.values() if self._here else ()", "self._seen.values()", "tests/tracking/test_sending.py -k killed"),
    F("a fresh training continues the old one's curve", "pipeline/tracking/tracker.py",
      'return {"instance": str(instance)}', "return {}", "tests/tracking/test_tracker.py -k instance"),
    F("two publishers make two runs", "pipeline/tracking/tracker.py",
      "with alone(self._uri, self._experiment):", "if True:", "tests/tracking/test_tracker.py -k under_a_lock"),
    F("the younger of two runs is kept", "pipeline/tracking/tracker.py",
      "oldest = next(iter(self._fitting(self._find(identity), history)), mine)", "oldest = mine", "tests/tracking/test_tracker.py -k older_run"),
)  # fmt: skip


def is_caught(fault: Fault, folder: Path) -> str:
    """Returns the test that catches a fault, or nothing."""
    path = folder / fault.file
    source = path.read_text()
    assert source.count(fault.right) >= 1, f"{fault.file} has no {fault.right!r}"
    path.write_text(source.replace(fault.right, fault.wrong, 1))
    try:
        said = _said_by(fault.tests, folder)
    finally:
        path.write_text(source)
    failed = [line for line in said if line.startswith("FAILED")]
    return failed[0].split(" ")[1].rpartition("::")[2] if failed else ""


def passes(tests: str, folder: Path) -> bool:
    """Tells whether tests pass where nothing is planted: else whatever fails would be called a catch."""
    last = _said_by(tests, folder)[-1]
    return " passed" in last and "failed" not in last and "error" not in last


def _said_by(tests: str, folder: Path) -> list[str]:
    place, _, which = tests.partition(" -k ")
    arguments = [place, *(["-k", which] if which else [])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.splitlines() or [done.stderr]


def main() -> int:
    """Prints the table."""
    words = sys.argv[1:]
    chosen = [fault for fault in FAULTS if not words or any(word in fault.what for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "planted"
        ignored = shutil.ignore_patterns(
            ".venv", ".git", ".dvc", "__pycache__", ".mypy_cache", "runs"
        )
        shutil.copytree(REPO, folder, ignore=ignored)
        (folder / ".venv").symlink_to((REPO / ".venv").resolve())
        os.utime(
            folder / "requirements.lock", (0, 0)
        )  # `make` there leaves the environment as it is
        sound = {tests: passes(tests, folder) for tests in {fault.tests for fault in chosen}}
        print("| fault | in | caught by |\n|---|---|---|")
        for fault in chosen:
            caught = is_caught(fault, folder) if sound[fault.tests] else ""
            missed += not caught
            instead = "**nothing**" if sound[fault.tests] else "**its tests fail without it too**"
            print(f"| {fault.what} | {fault.file} | {caught or instead} |", flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
