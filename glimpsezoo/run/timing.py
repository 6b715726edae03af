"""How long models take before a run begins: to be compiled, and per image."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.core.computing import uncompiled_phases
from glimpsezoo.core.inference import inference
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.errors import GlimpseZooError, out_of_memory
from glimpsezoo.evaluation.environment import channels_last
from glimpsezoo.evaluation.memory import BatchSize, Parts
from glimpsezoo.measures.stopwatch import seconds_of
from glimpsezoo.specs import Task

WARM_UP = (64, 31, 15, 7, 3, 2, 1)  # sizes of the batches that models are compiled on: for some sizes, torch makes code of their own
TIMED = 64  # images in a batch that is timed


def compile_now(model: GlimpseModel[Any], task: Task, device: torch.device, batch_size: BatchSize = "auto") -> str:
    """Let torch compile a model, on batches of noise. Returns how long that took, and what was not compiled."""
    model.to(device)
    channels_last(model)
    parts, seconds = Parts.of(batch_size, task, device), 0.0
    with inference(model):
        images = torch.rand(WARM_UP[0], task.channels, *task.image_size, device=device)
        for size in WARM_UP:
            if size <= parts.size:  # larger batches will not come
                try:
                    seconds += seconds_of(lambda size=size: _run(model, images[:size]), device)
                except (MemoryError, RuntimeError) as error:
                    parts.halve(error)
    left_out = ", ".join(uncompiled_phases(model))
    return f"compiling took {seconds:.0f} s" + (f"; torch cannot compile {left_out}, which runs as it is" if left_out else "")


def seconds_per_image(model: GlimpseModel[Any], task: Task, device: torch.device, batch_size: BatchSize = "auto") -> float:
    """Seconds per image: the fastest of three batches of noise, of 64 images or as many as fit. 0.0 if the model fails.

    Then its units fail, which say why. Raises `GlimpseZooError`, and what says that memory ran out.
    """
    model.to(device)
    parts = Parts.of(batch_size, task, device)
    parts.size = min(parts.size, TIMED)
    with inference(model):
        while True:
            try:
                images = torch.rand(parts.size, task.channels, *task.image_size, device=device)
                return min(seconds_of(lambda images=images: _run(model, images), device) for _ in range(3)) / len(images)
            except GlimpseZooError:
                raise
            except Exception as error:  # a plugin may fail in any way
                if not out_of_memory(error):
                    return 0.0
                parts.halve(error)


def _run(model: GlimpseModel[Any], images: Float[Tensor, "B C H W"]) -> None:
    """One rollout. A policy that reads labels is told some."""
    noise = Noise.of(0, torch.arange(len(images), device=images.device))
    rollout(model, images, noise=noise, policy=model.follows.told(noise, noise.keys.new_zeros(len(images))))
