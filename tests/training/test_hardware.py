"""What a device can do is asked before a training begins."""

import pytest
import torch

from pipeline.errors import ResourceError
from pipeline.training.hardware import require


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
