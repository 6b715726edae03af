"""How long a model takes on this device: median times of whole batches, with and without early exits. Never cached."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glimpsezoo.data.base import ImageData
from glimpsezoo.data.loading import batches
from glimpsezoo.driver import rollout
from glimpsezoo.environment import device_name
from glimpsezoo.evaluation import evaluating
from glimpsezoo.exits import ExitRule
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Speed, SpeedBatch

BATCHES = (1, 16, 64)
REPEATS = 15  # after two runs that do not count


def speed_section(model: GlimpseModel[Any], data: ImageData, rule: ExitRule | None, *, sizes: Sequence[int] = BATCHES) -> Speed:
    """Times of the first images of `data` on the model's device; under `rule` too, with images that exit leaving the batch."""
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = []
    with evaluating(model), torch.no_grad():
        for size in sizes:
            batch = next(iter(batches(data, 0, min(size, len(data)), size, 0)))
            images, noise = batch.images.to(device), Noise.of(0, batch.ids.to(device))
            found += [_timed(model, images, noise, each) for each in ([None, rule] if rule else [None])]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Speed(device=device_name(device), threads=torch.get_num_threads(), batches=tuple(found), peak_memory=peak)


def _timed(model: GlimpseModel[Any], images: Tensor, noise: Noise, rule: ExitRule | None) -> SpeedBatch:
    times = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        rollout(model, images, noise=noise, exit_rule=rule)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        times.append(1000 * (time.perf_counter() - began))
    low, median, high = statistics.quantiles(times[2:], n=4)
    return SpeedBatch(
        batch=len(images), median_ms=median, iqr_ms=high - low, images_per_s=1000 * len(images) / median, compacted=rule is not None
    )
