"""How long a model takes on this device: median times of whole batches, with and without early exits. Never cached."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.data.base import ImageData, OnBadImage
from glimpsezoo.data.loading import batches
from glimpsezoo.driver import rollout
from glimpsezoo.environment import device_name
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import evaluating
from glimpsezoo.exits import ExitRule
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Speed, SpeedBatch

BATCHES = (1, 16, 64)
REPEATS = 15  # after two runs that do not count


def speed_section(
    model: GlimpseModel[Any],
    data: ImageData,
    rule: ExitRule | None,
    *,
    sizes: Sequence[int] = BATCHES,
    on_bad_image: OnBadImage = "fail",
) -> Speed:
    """Times of the first images of `data` on the model's device; under `rule` too, with images that exit leaving the batch.

    on_bad_image: 'fail' raises `BadImageError`; 'skip' takes the next image instead, and raises `GlimpseZooError` where there is none.
    """
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = []
    with evaluating(model), torch.no_grad():
        for size in sizes:
            images, ids = _first(data, size, on_bad_image)
            images, noise = images.to(device), Noise.of(0, ids.to(device))
            found += [_timed(model, images, noise, each) for each in ([None, rule] if rule else [None])]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Speed(device=device_name(device), threads=torch.get_num_threads(), batches=tuple(found), peak_memory=peak)


def _first(data: ImageData, size: int, on_bad_image: OnBadImage) -> tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]:
    """The first `size` images that can be read, or all of them, and their ids."""
    images, ids = [], []
    for batch in batches(data, 0, len(data), size, 0, on_bad_image=on_bad_image):
        images += batch.images.unbind()
        ids += batch.ids.unbind()
        if len(ids) >= size:
            break
    if not ids:
        raise GlimpseZooError(f"expected images that can be read, got none among {len(data)}: mend the data to time a model on them")
    return torch.stack(images[:size]), torch.stack(ids[:size])


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes on a device that was idle before: an accelerator is waited for, which a call alone does not do."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _timed(model: GlimpseModel[Any], images: Tensor, noise: Noise, rule: ExitRule | None) -> SpeedBatch:
    times = [1000 * seconds_of(lambda: rollout(model, images, noise=noise, exit_rule=rule), images.device) for _ in range(REPEATS + 2)]
    low, median, high = statistics.quantiles(times[2:], n=4)
    return SpeedBatch(
        batch=len(images), median_ms=median, iqr_ms=high - low, images_per_s=1000 * len(images) / median, compacted=rule is not None
    )
