"""The line in the virtual environment by which every Python process settles its environment first."""

from pathlib import Path

import pytest

from infra.local import hook


def test_a_line_of_a_clone_that_is_gone_is_not_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("infra.local.hook.sysconfig.get_paths", lambda: {"purelib": str(tmp_path)})
    assert not hook.is_live()
    hook.main()
    assert hook.is_live()
    other = tmp_path / "environment.py"
    other.touch()
    (tmp_path / "study.pth").write_text(hook.LINE.format(path=str(other)))
    hook.main()  # of a clone that shares the environment
    assert str(other) in (tmp_path / "study.pth").read_text()
    (tmp_path / "study.pth").write_text(hook.LINE.format(path="/it's/gone)(1)/environment.py"))
    assert not hook.is_live()
    (tmp_path / "study.pth").write_text("import os; (lambda")
    assert not hook.is_live()
