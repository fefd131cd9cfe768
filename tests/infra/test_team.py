"""What becomes of a team's servers whose start is interrupted; tests/integration/test_team.py has the rest."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.local import s3, team
from pipeline.errors import BusyError
from pipeline.files import write


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The servers' folder, in a state of its own."""
    monkeypatch.setenv("STUDY_STATE_DIR", str(tmp_path))
    return team.folder()


def test_ctrl_c_while_they_start_ends_them(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Else they went on, and nothing knew of them."""
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(process: subprocess.Popen[bytes], *_: object) -> None:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(team, "_await", interrupted)
    nowhere = SimpleNamespace(place=SimpleNamespace(variables=dict))
    monkeypatch.setattr(s3, "connect", lambda: nowhere)
    with pytest.raises(KeyboardInterrupt):
        team.up()
    (process,) = started
    assert process.poll() is not None
    assert not s3.is_held(folder / "lock")
    assert not team.down()


@pytest.mark.parametrize("said", [None, "", "4194305"])  # more than the kernel numbers
def test_servers_that_do_not_say_who_they_are_are_not_taken_down(folder: Path, said: str | None):
    if said is not None:
        write(folder / "pid", said)
    with (
        s3.held_by_child(folder / "lock"),
        pytest.raises(BusyError, match="`make team-down` again in a few seconds"),
    ):
        team.down()
