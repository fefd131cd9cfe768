"""The optimizer is torch's, bit for bit, and imports no compiler."""

import subprocess
import sys

import pytest
import torch

from pipeline.training.sgd import Sgd


def weights() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    image = torch.randn(8, 3, 5, 5).to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(value) for value in (image, torch.randn(7), torch.randn(4, 6))]


@pytest.mark.parametrize("momentum, decay", [(0.9, 1e-4), (0.9, 0.0), (0.0, 1e-2)])
def test_it_ends_with_the_bits_of_torchs_fused_one(momentum: float, decay: float):
    ours, torchs = weights(), weights()
    mine = Sgd(ours, 0.1, momentum, decay)
    theirs = torch.optim.SGD(torchs, 0.1, momentum=momentum, weight_decay=decay, fused=True)
    for update in range(7):
        mine.lr = theirs.param_groups[0]["lr"] = 0.1 / (1 + update)
        for optimizer, parameters in ((mine, ours), (theirs, torchs)):
            optimizer.zero_grad()
            sum((p.sin() * p).sum() for p in parameters).backward()
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, torchs, strict=True))
    assert all(m.stride() == p.stride() for m, p in zip(mine.momenta, ours, strict=False))


@pytest.mark.slow
def test_a_training_and_its_evaluation_import_neither_torchs_compiler_nor_what_it_needs():
    code = (
        "import sys, torch\n"
        "from pipeline.evaluation import whole\n"
        "from pipeline.models.archs import ARCHS\n"
        "from pipeline.models.complexity import complexity\n"
        "from pipeline.models.resnet import ResNet\n"
        "from pipeline.training.loop import Step\n"
        "from pipeline.training.sgd import Sgd\n"
        "model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))\n"
        "step = Step(model, Sgd(model.parameters(), 0.1, 0.9, 1e-4), 'bfloat16', 0.1, 2)\n"
        "for _ in range(2): step(torch.randn(4, 1, 8, 8), torch.arange(4) % 3)\n"
        "complexity(ResNet(ARCHS['resnet-20'], 1, 3).eval(), (1, 8, 8))\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
