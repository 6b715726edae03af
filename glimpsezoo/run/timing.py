"""How long models take before a run begins: to be compiled, and per image."""

from typing import Any

import torch

from glimpsezoo.core.computing import uncompiled_phases
from glimpsezoo.core.inference import inference
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.evaluation.environment import channels_last
from glimpsezoo.measures.stopwatch import seconds_of
from glimpsezoo.specs import Task

WARM_UP = (64, 31, 15, 7, 3, 2, 1)  # sizes of the batches that models are compiled on: for some sizes, torch makes code of their own


def compile_now(model: GlimpseModel[Any], task: Task, device: torch.device) -> str:
    """Let torch compile a model, on batches of noise. Returns how long that took, and what was not compiled."""
    model.to(device)
    channels_last(model)
    with inference(model):
        images = torch.rand(WARM_UP[0], task.channels, *task.image_size, device=device)
        seconds = sum(seconds_of(lambda size=size: rollout(model, images[:size]), device) for size in WARM_UP)
    left_out = ", ".join(uncompiled_phases(model))
    return f"compiling took {seconds:.0f} s" + (f"; torch cannot compile {left_out}, which runs as it is" if left_out else "")


def seconds_per_image(model: GlimpseModel[Any], task: Task, device: torch.device, batch: int = 64) -> float:
    """Seconds per image: the fastest of three batches of noise."""
    model.to(device)
    images = torch.rand(batch, task.channels, *task.image_size, device=device)
    with inference(model):
        return min(seconds_of(lambda: rollout(model, images), device) for _ in range(3)) / batch
