"""What `make trial-faults` would plant can be planted: each line stands in its file."""

import pytest

from tests.planted_faults import FAULTS, REPO, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_can_be_planted(fault: Fault):
    assert fault.right in (REPO / fault.file).read_text()
