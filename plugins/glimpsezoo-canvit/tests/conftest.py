"""A tiny CanViT whose weights all matter, and images that are not square."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from glimpsezoo import GlimpseModel, Task, create_model

TASK = Task((48, 64), 3, ("a", "b", "c"), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TINY = {
    "backbone": "tiny", "glimpse": 32, "glimpses": 6, "canvas": 4, "canvas_heads": 2, "canvas_head_dim": 12, "canvas_registers": 3,
    "registers": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> Callable[..., GlimpseModel]:
    """Makes the model in eval mode: `tiny(**settings)`."""

    def make(task: Task = TASK, **settings: Any) -> GlimpseModel:
        model = create_model("canvit", task=task, **{**TINY, **settings})
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("gamma"):  # untrained, blocks hardly change a token
                    weight.uniform_(0.3, 0.6, generator=generator)
                elif weight.ndim == 1 or "init" in name:  # biases and norms, which begin as 0 and 1
                    weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
                elif "blocks" in name:
                    weight.mul_(6)
        return model

    return make


@pytest.fixture
def images() -> Tensor:
    """[5, 3, 48, 64], pixels in [0, 1]."""
    blocks = torch.rand(5, 3, 6, 8, generator=torch.Generator().manual_seed(2))
    return F.interpolate(blocks, size=(48, 64))
