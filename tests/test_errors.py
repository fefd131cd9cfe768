"""Errors never show a password."""

import pytest

from pipeline.errors import StudyError


@pytest.mark.parametrize("password", ["word", "p@ss", "@", "a:b@c"])
def test_no_part_of_a_password_is_shown(password: str):
    said = str(StudyError(f"MLflow at http://ada:{password}@host:5000/a@b, see a@b"))
    assert said == "MLflow at http://host:5000/a@b, see a@b"
