"""A small AdaptiveNN whose places, values and predictions differ between images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from glimpsezoo_adaptivenn.config import AdaptiveNNConfig
from glimpsezoo_adaptivenn.model import AdaptiveNN
from torch import Tensor

from glimpsezoo import Noise, Task, TrainingPhase

# Two channels and different height and width, so that a mix-up is detected.
TASK = Task((40, 48), 2, ("a", "b", "c"), mean=(0.4, 0.6), std=(0.3, 0.2))
SMALL = {"glimpses": 2, "patch": 16, "token": 4, "width": 16, "depth": 3, "head_depth": 1, "attention_heads": 2, "window": 3}
SMALL |= {"locator_channels": 4, "locator_hidden": 8, "drop_path": 0.0}


@pytest.fixture(scope="session")
def small() -> Callable[..., AdaptiveNN]:
    """Makes the model in eval mode: `small(**settings)`."""

    def make(task: Task = TASK, **settings: Any) -> AdaptiveNN:
        torch.manual_seed(0)
        model = AdaptiveNN(AdaptiveNNConfig.parse({**SMALL, **settings}, owner="adaptivenn"), task).eval()
        with torch.no_grad():
            for tensor in model.parameters():  # larger than untrained weights, so that the steps differ
                tensor.add_(0.2 * torch.randn_like(tensor))
            model.locator.out.weight.mul_(5)
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
    """What a training step gets: `phase(count, **options)` for a batch of `count` images."""

    def make(count: int, step: int = 0, **options: Any) -> TrainingPhase:
        noise = Noise.of(0, torch.arange(count))
        return TrainingPhase(name="test", options={"own_side": 20, **options}, step=step, steps=10, epoch=0, noise=noise, memory={})

    return make
