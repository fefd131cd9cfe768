"""Families of networks: one contract for all, torchvision's, and one of one's own by CONTRIBUTING."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from infra import attest
from pipeline.errors import ParamsError
from pipeline.models import networks
from pipeline.models.recompute import Recomputed
from pipeline.params import Network, Row, TorchvisionNetwork, validate
from pipeline.training.identity import source_of
from pipeline.training.schedules.cosine import CosineSchedule
from tests.conftest import REPO

GUIDE = (REPO / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("document", attest.NETWORKS.values(), ids=list(attest.NETWORKS))
def test_every_family_draws_from_its_seed_and_gives_logits(document: dict):
    network = validate(Network, document, "test")
    first, again, other = (networks.build(network, 3, 5, seed).eval() for seed in (1, 1, 2))
    assert network.title and network.kind in ("plain", "residual", "other")
    images = torch.rand(2, 3, 64, 64)
    torch.manual_seed(3)
    with torch.no_grad():
        logits = first(images)
        assert logits.shape == (2, 5)
        assert logits.dtype == torch.float32
        assert torch.equal(logits, again(images))
        assert not torch.equal(logits, other(images))
        with torch.autocast("cpu", torch.bfloat16):
            logits = first(images)  # of bfloat16 logits many are equal
            assert logits.dtype == torch.float32
            assert not torch.equal(logits, logits.bfloat16().float())
    # `model.json` alone says how to build what has these weights
    networks.build(network, 3, 5).load_state_dict(first.state_dict())


@pytest.mark.parametrize("document", attest.NETWORKS.values(), ids=list(attest.NETWORKS))
def test_activation_checkpointing_is_done_or_refused(row: Callable[..., Row], document: dict):
    try:
        wanted = row(network=document, activation_checkpointing=True).network
    except ValidationError as error:
        assert "activation_checkpointing true" in str(error)
    else:
        model = networks.build(wanted, 3, 5, 1, recompute=True)
        assert any(isinstance(module, Recomputed) for module in model.modules())


def test_a_network_that_draws_while_it_trains_is_refused():
    def of(**arguments: float) -> TorchvisionNetwork:
        return TorchvisionNetwork(
            family="torchvision", name="mobilenet_v3_small", arguments=arguments
        )

    with pytest.raises(ParamsError, match="drops at random"):
        networks.build(of(), 3, 5)
    networks.build(of(dropout=0.0), 3, 5)


@pytest.mark.parametrize(
    "name, arguments, said",
    [
        ("resnet19", {}, "no classifier of that name: .*resnet1"),
        ("r3d_18", {}, "no classifier of that name"),  # of videos
        ("densenet121", {"drop_rate": 0.2}, "drop_rate is 0.2"),  # no module shows it
        ("googlenet", {}, "add aux_logits: false"),
        ("resnet18", {"depth": 3}, "unexpected keyword argument 'depth'"),
    ],
)
def test_what_torchvision_has_not_is_told(name: str, arguments: dict, said: str):
    network = TorchvisionNetwork(family="torchvision", name=name, arguments=arguments)
    with pytest.raises(ParamsError, match=said):
        networks.build(network, 3, 5)


def test_grey_images_are_refused():
    network = TorchvisionNetwork(family="torchvision", name="resnet18", arguments={})
    with pytest.raises(ParamsError, match="three channels, but the data have 1"):
        networks.build(network, 1, 5)


def test_the_weights_are_the_studys_to_choose():
    document = {"family": "torchvision", "name": "resnet18", "arguments": {"weights": "DEFAULT"}}
    with pytest.raises(ParamsError, match="weights is set by the study"):
        validate(Network, document, "test")


def test_a_family_is_in_the_keys_of_its_own_rows_alone(row: Callable[..., Row]):
    schedule = CosineSchedule(shape="cosine", base_lr=0.1, total_updates=9, warmup=None)
    families = {
        member.model_fields["family"].annotation for member in get_args(get_args(Network)[0])
    }
    sources = {source_of(row(network=document), schedule) for document in attest.NETWORKS.values()}
    assert len(sources) == len(families)


def test_the_guides_network_of_ones_own(tmp_path: Path):
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 50
    namespace: dict = {"__name__": "preact"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), namespace)

    class Recipe:
        depth = 20

    first, again = (namespace["build"](Recipe, 3, 5, 1, recompute=False) for _ in range(2))
    images = torch.rand(2, 3, 32, 32)
    assert first(images).shape == (2, 5)
    assert torch.equal(first(images), again(images))
    recomputed = namespace["build"](Recipe, 3, 5, 1, recompute=True)
    assert torch.equal(first(images), recomputed(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert first(images).dtype == torch.float32
    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in first.modules()) == 20 + 2
