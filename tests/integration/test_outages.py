"""MLflow's server is of no use while a study runs, or comes and goes: afterwards it has everything, once."""

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from infra.local import s3
from pipeline.storage.objects import Storage
from pipeline.training.history import parse_history_csv
from tests import outages
from tests.conftest import TINY, copy_study, run_in
from tests.integration.trainings import require_logged_once, said_by, start

pytestmark = [pytest.mark.integration, pytest.mark.trial]
UPDATES = 3000  # longer than a sender waits before it sends the first curve
ROWS = ("plain-8", "resnet-8")


def long_study(folder: Path, seed: int) -> Path:
    """Puts a study of two rows, which nobody has trained yet, into a folder."""

    def change(document: dict) -> None:
        for name in ROWS:
            document["models"][name] |= {
                "schedule": "schedules/long.yaml", "report_every_updates": 50, "seed": seed,
            }  # fmt: skip
        document["models"] = {name: document["models"][name] for name in ROWS}
        document["tune"] = {}

    copy_study(folder, change)
    with (folder / "schedules/long.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump({**TINY, "total_updates": UPDATES}, file)
    return folder


def require_every_line_once(study: Path, address: str) -> None:
    """Compares what a client that knows the address alone finds with the rows' histories."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("resnet-study")
    found = client.search_runs([experiment.experiment_id], "tags.kind = 'training'")
    assert sorted(run.info.run_name for run in found) == sorted(ROWS)
    for run in found:
        assert run.info.status == "FINISHED"
        text = (study / "runs" / run.info.run_name / "history.csv").read_text()
        history = parse_history_csv(text)
        assert history[-1].update == UPDATES
        require_logged_once(client, run.info.run_id, history)


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/team.db"


@pytest.mark.parametrize(
    "how, seed", [("closed", 101), ("hangs", 102), ("trickles", 103), ("breaks", 104)]
)
def test_a_server_of_no_use_hurts_nothing_and_misses_nothing(
    how: str, seed: int, tmp_path: Path, database: str, storage: Storage
):
    study = long_study(tmp_path / "study", seed)
    with contextlib.ExitStack() as stack:
        if how == "closed":
            address = f"http://127.0.0.1:{s3.free_port()}"
        else:
            address = stack.enter_context(outages.server(getattr(outages, how)))
        done = run_in(study, "make", "study", MLFLOW_TRACKING_URI=address)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "`make publish` sends the rest" in done.stderr
    port = int(address.rsplit(":", 1)[1])
    with outages.MlflowServer(database, port):
        sent = run_in(study, "make", "publish", MLFLOW_TRACKING_URI=address)
        assert sent.returncode == 0, sent.stdout + sent.stderr
        require_every_line_once(study, address)


@contextlib.contextmanager
def comes_and_goes(server: outages.MlflowServer, kills: list[float]) -> Iterator[None]:
    """Kills a server at random moments, and starts it again a moment later."""
    ended, chance = threading.Event(), random.Random(0)

    def work() -> None:
        while not ended.wait(chance.uniform(1, 15)):
            server.kill()
            kills.append(chance.uniform(0, 8))
            ended.wait(kills[-1])
            server.start()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_server_that_is_killed_again_and_again_has_every_line_once(
    tmp_path: Path, database: str, storage: Storage
):
    study, kills = long_study(tmp_path / "study", seed=1000), list[float]()
    with outages.MlflowServer(database) as server:
        with comes_and_goes(server, kills):
            said = said_by(
                process := start(study, "make", "study", MLFLOW_TRACKING_URI=server.address)
            )
        assert process.returncode == 0, said
        assert len(kills) > 1
        sent = run_in(study, "make", "publish", MLFLOW_TRACKING_URI=server.address)
        assert sent.returncode == 0, sent.stdout + sent.stderr
        require_every_line_once(study, server.address)
