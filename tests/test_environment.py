"""What of an environment stays."""

import os
import sys
from pathlib import Path

import pytest

from pipeline.environment import settle
from tests.conftest import REPO


def settled(**variables: str) -> dict[str, str]:
    environ = {"HOME": "/home/me", "PATH": "/bin", **variables}
    settle(environ)
    return environ


def test_another_s3_is_chosen_by_its_bucket_alone():
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_ENDPOINT_URL": "http://x", "AWS_PROFILE": "p"}
    assert not keys.items() & settled(**keys).items()
    assert keys.items() <= settled(STUDY_BUCKET="mine", **keys).items()
    assert "AWS_SHARED_CREDENTIALS_FILE" not in settled(STUDY_BUCKET="mine")


def test_without_one_nothing_of_awss_files_is_read():
    found = settled(STUDY_STATE_DIR="/state")
    assert found["AWS_SHARED_CREDENTIALS_FILE"] == "/state/credentials"
    assert found["AWS_CONFIG_FILE"].startswith("/state/")


def test_dvc_reads_no_configuration_but_the_studys():
    found = settled(STUDY_STATE_DIR="/state", DVC_GLOBAL_CONFIG_DIR="/home/me/dvc")
    assert found["DVC_GLOBAL_CONFIG_DIR"] == found["DVC_SYSTEM_CONFIG_DIR"] == "/state/dvc-config"


def test_mlflows_settings_stay_with_an_mlflow_of_ones_own():
    uri = {"MLFLOW_TRACKING_URI": "http://x"}
    assert settled(MLFLOW_TRACKING_TOKEN="t", **uri)["MLFLOW_TRACKING_TOKEN"] == "t"
    assert "MLFLOW_TRACKING_TOKEN" not in settled(MLFLOW_TRACKING_TOKEN="t")


@pytest.mark.parametrize(
    "name",
    [
        "RCLONE_BWLIMIT",
        "RAY_TMPDIR",
        "OMP_NUM_THREADS",
        "GIT_DIR",
        "MPLBACKEND",
        "DVC_EXP_AUTO_PUSH",
        "STUDY_S3",
        "PYTHONDONTWRITEBYTECODE",
    ],
)
def test_what_nothing_chooses_never_stays(name: str):
    assert name not in settled(**{name: "x"})


def test_what_python_compiles_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    settled()
    assert sys.dont_write_bytecode  # by -B
    settled(PYTHONDONTWRITEBYTECODE="1")
    assert not sys.dont_write_bytecode


def test_the_embedded_ray_has_a_token_of_its_own_and_a_cluster_the_users():
    assert (
        settled(RAY_AUTH_TOKEN="t", STUDY_STATE_DIR="/s")["RAY_AUTH_TOKEN_PATH"] == "/s/ray_token"
    )
    assert "RAY_AUTH_TOKEN" not in settled(RAY_AUTH_TOKEN="t")
    there = settled(RAY_ADDRESS="http://far:8265", RAY_AUTH_TOKEN="t")
    assert there["RAY_AUTH_TOKEN"] == "t"
    assert "RAY_AUTH_TOKEN_PATH" not in there


def test_loopback_is_never_asked_through_a_proxy_and_the_users_exceptions_stay():
    assert settled(no_proxy="intranet")["no_proxy"] == (
        "intranet,127.0.0.1,localhost,::1,169.254.169.254,metadata.google.internal"
    )


def test_exceptions_in_either_spelling_stay_in_both():
    """requests, urllib and curl read the small one first."""
    found = settled(NO_PROXY=".intranet, 10.0.0.1", no_proxy="localhost,mirror")
    for name in ("no_proxy", "NO_PROXY"):
        assert found[name].startswith("localhost,mirror,.intranet,10.0.0.1,127.0.0.1,::1")
    assert settled(NO_PROXY=".intranet")["no_proxy"].startswith(".intranet,")


def test_other_programs_packages_do_not_come_before_the_locked_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Modules of clusters and robots' shells set PYTHONPATH; a folder of the clone may stand there."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(REPO / "tests"), *sys.path])
    found = settled(PYTHONPATH=f"{tmp_path}{os.pathsep}{REPO / 'tests'}", PYTHONOPTIMIZE="1")
    assert found["PYTHONPATH"] == str(REPO / "tests")
    assert str(tmp_path) not in sys.path and str(REPO / "tests") in sys.path
    assert "PYTHONOPTIMIZE" not in found
    libraries = str(Path(os.__file__).parent)
    settled(PYTHONPATH=libraries)
    assert libraries in sys.path


def test_a_folder_too_long_for_sockets_keeps_the_cache_alone():
    long = "/scratch/" + 20 * "long-"
    found = settled(TMPDIR=long)
    assert found["TMPDIR"] == "/tmp"
    assert found["STUDY_CACHE_DIR"] == f"{long}/study-cache-{os.getuid()}"
    assert settled(TMPDIR=long, STUDY_CACHE_DIR="/mine")["STUDY_CACHE_DIR"] == "/mine"
    assert "STUDY_CACHE_DIR" not in settled(TMPDIR="/var/tmp")


def test_a_child_takes_it_as_it_is():
    environ = settled()
    environ["RAY_RAYLET_PID"] = "1"  # set by Ray for its own
    settle(environ)
    assert environ["RAY_RAYLET_PID"] == "1"
