"""What `make doctor` says where a check itself fails."""

import pytest

from infra.local import doctor
from pipeline.errors import StorageError


def fails_by(error: Exception) -> doctor.Finding:
    def a_check() -> doctor.Finding:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "CHECKS", (a_check, doctor.python))
        found, after = doctor.findings()
    assert (found.what, after.what) == ("a check", "Python")  # the others go on
    return found


def test_an_error_of_ours_says_itself_what_to_do():
    said = "S3 does not answer: `make down`, then try again (log: /s/server.log)"
    assert fails_by(StorageError(said)).to_do == said


def test_a_package_that_cannot_be_imported_is_installed_again():
    found = fails_by(ModuleNotFoundError("No module named 'torch'"))
    assert "No module named 'torch'" in found.found
    assert "make install" in found.to_do


def test_any_other_error_is_a_finding_too():
    assert fails_by(KeyError("Date")).found == "KeyError: 'Date'"
