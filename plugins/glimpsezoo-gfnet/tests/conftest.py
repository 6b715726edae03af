"""A small GFNet whose places and predictions differ between images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from glimpsezoo_gfnet.config import GFNetConfig
from glimpsezoo_gfnet.model import GFNet
from torch import Tensor

from glimpsezoo import Noise, Task, TrainingPhase

# Two channels and different height and width, so that a mix-up is detected.
TASK = Task((40, 48), 2, ("a", "b", "c"), mean=(0.4, 0.6), std=(0.3, 0.2))
SMALL = {"backbone": "test_efficientnet", "patch": 16, "glimpses": 3, "hidden": 12, "locator_hidden": 10}


@pytest.fixture(scope="session")
def small() -> Callable[..., GFNet]:
    """Makes the model in eval mode: `small(**settings)`."""

    def make(**settings: Any) -> GFNet:
        torch.manual_seed(0)
        model = GFNet(GFNetConfig.parse({**SMALL, **settings}, owner="gfnet"), TASK).eval()
        with torch.no_grad():
            model.locator.actor.weight.mul_(10)
            for tensor_name, tensor in model.state_dict().items():
                if "running_var" in tensor_name:
                    tensor.mul_(0.7)  # otherwise, the signal of an untrained network vanishes
        return model

    return make


@pytest.fixture
def images() -> Tensor:
    """[6, 2, 40, 48], pixels in [0, 1]."""
    return torch.rand(6, 2, 40, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> Tensor:
    """[6], of three classes."""
    return torch.arange(6) % 3


@pytest.fixture
def phase() -> Callable[..., TrainingPhase]:
    """What a training step gets: `phase(count, stage=1)` for a batch of `count` images."""

    def make(count: int, **options: Any) -> TrainingPhase:
        noise = Noise.of(0, torch.arange(count))
        return TrainingPhase(name="test", options=options, step=0, steps=1, epoch=0, noise=noise, memory={})

    return make
