"""Searches that are killed, stopped, raised and out of time: one result, however it came."""

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.cluster import trainer
from pipeline.data import prepared
from pipeline.models.predict import device
from pipeline.params import load, read_yaml
from pipeline.storage.layout import SEARCHES, TRIALS, Instances, project
from pipeline.storage.objects import Storage
from pipeline.tuning.halving import behind
from pipeline.tuning.search import Search
from tests.conftest import changed_params, copy_study, run_in
from tests.integration.trainings import caught, here, prepare, said_by, start, wait_for

pytestmark = pytest.mark.integration
REPORTS = (20, 40, 60, 80)


def small_search(document: dict) -> None:
    document["tune"]["resnet-8"] |= {
        "model": "resnet-8", "trials": 3, "total_updates": 80, "grace_updates": 20,
        "report_every_updates": 20,
    }  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, own_state: Path) -> Path:
    folder = copy_study(tmp_path_factory.mktemp("search") / "study", small_search)
    prepare(folder)
    return folder


SEARCH = ("python", "-m", "stages.tune", "resnet-8")


def searched(study: Path) -> tuple[str, str]:
    """Returns what a search wrote: the schedule, and the table of its trials."""
    return tuple((study / f"tuned/resnet-8.{suffix}").read_text() for suffix in ("yaml", "csv"))


def search_of(study: Path, storage: Storage) -> Search:
    document = load(study / "params.yaml")
    digest = prepared.look(study / "data/arrays.safetensors").digest
    tune = document.tune["resnet-8"]
    return Search(tune, document.models[tune.model], digest, storage)


def updates_of(study: Path, storage: Storage) -> dict[str, int]:
    """Returns how far each trial of the search is, by its key."""
    return {trial.key: trial.updates for trial in search_of(study, storage).trials()}


def forget_the_search(study: Path, storage: Storage) -> None:
    for kind in (SEARCHES, TRIALS):
        prefix = f"{project()}/{kind}/"
        storage.delete(*storage.keys(prefix))


def killed(study: Path, storage: Storage, update: int) -> None:
    """Begins the search, and kills it when one of its trials is as far."""
    process = start(study, *SEARCH)
    wait_for(lambda: max(updates_of(study, storage).values()) >= update)
    process.kill()
    process.wait()


def ended(study: Path) -> tuple[str, str]:
    """Brings the search to its end; returns what it wrote."""
    done = run_in(study, *SEARCH)
    assert done.returncode == 0, done.stderr
    return searched(study)


def at_once(number: int) -> Callable[[dict], None]:
    return lambda document: document["execution"].update(trials_at_once=number)


def with_trials(number: int) -> Callable[[dict], None]:
    return lambda document: document["tune"]["resnet-8"].update(trials=number)


def test_an_interrupted_search_decides_nothing_and_ends_as_if_not_and_more_trials_add_to_it(
    study: Path, storage: Storage
):
    raised = with_trials(5)
    forget_the_search(study, storage)
    with changed_params(study, raised):
        wanted = searched_without_ray(study, storage)  # all trials from the beginning
    assert read_yaml(study / "tuned/resnet-8.yaml")["total_updates"] == 80
    forget_the_search(study, storage)
    (study / "tuned/resnet-8.yaml").unlink()
    with changed_params(study, at_once(2)):
        search = search_of(study, storage)

        def begin() -> subprocess.Popen[str]:
            forget_the_search(study, storage)
            (study / "tuned/resnet-8.yaml").unlink(missing_ok=True)
            return start(study, *SEARCH)

        def in_the_middle() -> bool:
            updates = [trial.updates for trial in search.trials()]
            return min(updates) >= REPORTS[0] and max(updates) < REPORTS[-1]

        interrupted = caught(begin, in_the_middle)
        interrupted.process.send_signal(signal.SIGINT)
        interrupted.goes_on()
        output = said_by(interrupted.process)
        assert interrupted.process.returncode == 130, output
        assert not (study / "tuned/resnet-8.yaml").exists()
    before = updates_of(study, storage)
    with changed_params(study, raised), changed_params(study, at_once(1)):
        ends_with_the_new_trials_alone(study, storage, before, wanted)


def searched_without_ray(study: Path, storage: Storage) -> tuple[str, str]:
    """Searches in this process, rung by rung, one trial after another; returns what `tune` collects of it."""
    search = search_of(study, storage)
    search.note(done=False)
    with chdir(study):
        while (rung := behind(search.trials(), search.tune)) is not None:
            for trial in rung[1]:
                config = {
                    "training": search.training(trial.number, rung[0]), "model": search.tune.model,
                    "arrays": paths.ARRAYS, "commit": "", "patience_s": 0.0, "decoders": 1,
                    "started": time.time(),
                }  # fmt: skip
                trainer.in_this_process(config, device(), lambda history: None)
    search.note(done=True)
    return ended(study)


def ends_with_the_new_trials_alone(
    study: Path, storage: Storage, before: dict[str, int], wanted: tuple[str, str]
) -> None:
    """The search, raised from the trials `before`, goes on: nothing of theirs is trained again."""
    process = start(study, *SEARCH)
    output = said_by(process)
    assert process.returncode == 0, output
    after = updates_of(study, storage)
    assert searched(study) == wanted  # however the first of them were trained
    assert f"{len(after) - len(before)} trials to update 20" in output
    assert before.keys() < after.keys()
    assert {key: after[key] for key in before if after[key] < before[key]} == {}


@pytest.mark.parametrize(
    "kills, trials, more_trials", [({3: (20,), 1: ()}, 4, 6), ({3: REPORTS, 1: REPORTS}, 8, 12)]
)
@pytest.mark.trial
def test_a_search_ends_the_same_however_it_was_killed_and_more_trials_add_to_it(
    study: Path, storage: Storage, kills: dict[int, tuple[int, ...]], trials: int, more_trials: int
):
    raised = with_trials(more_trials)
    forget_the_search(study, storage)
    with changed_params(study, raised), changed_params(study, at_once(1)):
        for update in kills[1]:
            killed(study, storage, update)
        wanted = ended(study)  # all trials from the beginning
    assert read_yaml(study / "tuned/resnet-8.yaml")["total_updates"] == 80
    forget_the_search(study, storage)
    with changed_params(study, with_trials(trials)), changed_params(study, at_once(3)):
        for update in kills[3]:
            killed(study, storage, update)
        ended(study)
        before = updates_of(study, storage)
    with changed_params(study, raised):
        ends_with_the_new_trials_alone(study, storage, before, wanted)


@pytest.mark.trial
def test_a_search_out_of_time_decides_nothing_and_goes_on(study: Path, storage: Storage):
    for suffix in ("yaml", "csv"):
        (study / f"tuned/resnet-8.{suffix}").unlink(missing_ok=True)
    short = {"seed": 9, "time_limit_s": 0.01}
    with changed_params(study, lambda d: d["tune"]["resnet-8"].update(short)):
        done = run_in(study, *SEARCH)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "time limit of 0.01 s is over" in done.stderr
    assert "nothing is decided" in done.stderr
    assert not (study / "tuned/resnet-8.yaml").exists()


def in_this_process(study: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    return here(study, *command[2:], **variables)


def test_a_search_in_which_every_trial_diverges_is_told(study: Path, storage: Storage):
    def wild(document: dict) -> None:
        document["tune"]["resnet-8"] |= {"trials": 2, "total_updates": 8, "grace_updates": 4}
        document["tune"]["resnet-8"]["report_every_updates"] = 4
        document["tune"]["resnet-8"]["space"]["base_lr"] = {"low": 1e30, "high": 1e31}
        document["execution"]["trials_at_once"] = 1  # one process

    with changed_params(study, wild):
        instances = Instances(storage, SEARCHES, search_of(study, storage).key)
        instances.begin("by somebody before")
        for run in (run_in, in_this_process):  # where none of Ray is started any more
            done = run(study, *SEARCH, STUDY_AGAIN="monday")
            assert done.returncode == 2, done.stdout + done.stderr
            assert "each of the 2 trials diverged" in done.stderr
            assert "Traceback" not in done.stderr
            # asked for afresh it begins once for each word; what was there stays
            assert instances.numbers() == [1, 2]
