"""What a device can do is asked before a training begins."""

import pytest
import torch

from pipeline.errors import ResourceError
from pipeline.training.hardware import require
from pipeline.training.usage import Usage


def test_float32_is_everywhere():
    require("float32", "models.net.precision")


def test_a_precision_that_the_processor_lacks_names_its_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(ResourceError, match=r"models\.net\.precision is bfloat16, but .* float32"):
        require("bfloat16", "models.net.precision")


def test_an_older_gpu_lacks_bfloat16(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an older GPU")
    with pytest.raises(ResourceError, match="an older GPU"):
        require("bfloat16", "models.net.precision")


def test_a_gpu_that_does_not_tell_how_busy_it_is_ends_no_training(monkeypatch: pytest.MonkeyPatch):
    """NVIDIA's errors are no RuntimeErrors."""

    def refuses(device: torch.device) -> int:
        raise Exception("NVMLError_NotSupported")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * 10**6, 40 * 10**6))
    monkeypatch.setattr(torch.cuda, "utilization", refuses)
    found = Usage(torch.device("cuda", 1)).sample()
    assert found["system/gpu_1_memory_usage_megabytes"] == 10
    assert found["system/gpu_1_memory_usage_percentage"] == 25
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    assert "system/gpu_1_utilization_percentage" not in found
