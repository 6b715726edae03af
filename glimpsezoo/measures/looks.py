"""Where a model looks under an attack on its glimpses, beside the same images without the attack."""

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.looks import most_kept, moved
from glimpsezoo.conditions.base import Condition
from glimpsezoo.core.inference import evaluating, inference
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.base import Batch, ImageData
from glimpsezoo.data.loading import batches
from glimpsezoo.hashing import module_hash
from glimpsezoo.measures.base import Bench
from glimpsezoo.measures.statistics import Estimate, Rate, mean_share
from glimpsezoo.measures.text import with_interval
from glimpsezoo.schema import Section


class Looks(Section):
    """What an attack on the glimpses reached. Of the glimpses after the first, with the same noise of the model as without the attack."""

    moved: Estimate
    """Mean distance from those of the clean image in the same step, in sides of the image; 1.41 is its diagonal."""
    kept: Rate
    """Share of an image's glimpses whose centres lie in one quarter of it: the quarter that has the most."""
    kept_clean: Rate
    """The same without the attack."""


def looks_text(found: Looks) -> str:
    """In a few words."""
    kept = f"{with_interval(found.kept)} % in one quarter ({100 * found.kept_clean.value:.1f} % without the attack)"
    return f"glimpses moved by {with_interval(found.moved)} % of a side, {kept}"


def looks_under(bench: Bench, model: GlimpseModel[Any], data: ImageData, condition: Condition) -> Looks | None:
    """The looks at images under an attack. None if no image can be read."""
    groups, found, parts = list[np.ndarray](), list[torch.Tensor](), bench.parts(model)
    for batch in batches(data, 0, len(data), parts.size, 0, on_bad_image=bench.on_bad_image):
        found += parts.over(len(batch.ids), partial(_compared, bench, model, batch, condition))
        groups.append(batch.groups.numpy())
    if not found:
        return None
    numbers, group = torch.cat(found, 1).numpy(), np.concatenate(groups)
    return Looks(**{name: mean_share(row, group) for name, row in zip(Looks.model_fields, numbers, strict=True)})


def _compared(bench: Bench, model: GlimpseModel[Any], batch: Batch, condition: Condition, part: slice) -> Float[Tensor, "3 b"]:
    """The three numbers of `Looks`, per image."""
    images, labels, ids = (tensor[part].to(bench.device) for tensor in (batch.images, batch.labels, batch.ids))
    with evaluating(model):
        changed = condition.apply(images, labels, ids, model)
    with inference(model):
        clean, attacked = (rollout(model, each, noise=Noise.of(bench.seed, ids)) for each in (images, changed))
    return torch.stack([moved(attacked, clean), most_kept(attacked), most_kept(clean)]).double().cpu()


def looks_code() -> list[str | None]:
    """Hashes of the code that determines `Looks`, besides that of the attack."""
    return [module_hash(name) for name in (__name__, moved.__module__, mean_share.__module__)]
