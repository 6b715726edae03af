"""Whether a training step may be shared between processes: tried on a few images before it is.

The gradient of a few images is computed twice in float64: of all of them on every process, and of shares that are added up. They agree
unless the training step uses its batch in another way than `shared.py` describes (a normalisation, say), or torch's own random numbers,
which are those of a share, not of an image.
"""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.data.base import collate
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.training.adversarial import PER_IMAGE
from glimpsezoo.training.job import TrainingJob, TrainingPhase
from glimpsezoo.training.shared import Share
from glimpsezoo.training.step import compute_gradients
from glimpsezoo.zoo.recipes import PhaseRecipe

LIMIT = 1e-4  # of a gradient's norm: above what rounding does in models that compute parts in float32, below what any other reason does


def check_share(job: TrainingJob, phase: PhaseRecipe, context: TrainingPhase) -> None:
    """Raises `GlimpseZooError` in all processes if their shares do not add up to a batch. context: of the next step."""
    share = context.share
    count = min(2 * share.world + 1, len(job.train))
    batch = collate(job.train.examples_at(range(count)), job.train.task)
    try:
        whole = _outcome(job, phase, context, Share(), (batch.images, batch.labels, batch.ids), torch.double)
        dtype = torch.double
    except RuntimeError:  # a training step that fixes the types of its numbers
        dtype = torch.float32
        whole = _outcome(job, phase, context, Share(), (batch.images, batch.labels, batch.ids), dtype)
    shared = _outcome(job, phase, context, replace(share), (batch.images, batch.labels, batch.ids), dtype)
    gap, what = max((_apart(whole.get(name), shared.get(name)), name) for name in whole.keys() | shared.keys())
    if share.gathered(torch.tensor([gap], dtype=torch.double)).max() > LIMIT:
        raise GlimpseZooError(
            f"expected a training step that {share.world} processes can share, got that of {type(job.model).__name__} in phase "
            f"{phase.name!r}, whose {what} of {count} images is {gap:.1%} off in shares (it uses its batch without phase.mean, or torch's "
            "random numbers): train on one process"
        )


def _outcome(
    job: TrainingJob, phase: PhaseRecipe, context: TrainingPhase, share: Share, batch: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """What a step on copies of everything gives: the gradient, the statistics and the memory."""
    count = len(batch[0])
    images, labels, ids = (share.of(each).to(job.device) for each in batch)
    model = deepcopy(job.model).to(dtype)
    own = replace(job, model=model, recipe=job.recipe.model_copy(update={"precision": "float32"}))
    seed = int(context.step)
    kept = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in context.memory.items()}
    given = replace(context, noise=Noise.of(seed, ids), memory=kept, share=share)
    torch.manual_seed(seed)
    compute_gradients(own, phase, images.to(dtype), labels, given, count)
    gradients = [torch.zeros(0, device=job.device)] + [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    statistics = [torch.zeros(0, device=job.device)] + [b.flatten().to(dtype) for b in model.buffers() if b.is_floating_point()]
    memory = {f"memory {name!r}": tensor for name, tensor in given.memory.items() if name not in PER_IMAGE}
    return {"gradient": torch.cat(gradients), "batch statistics": torch.cat(statistics), **memory}


def _apart(one: Tensor | None, other: Tensor | None) -> float:
    """The distance of two tensors as a share of the first one's norm."""
    if one is None or other is None or one.shape != other.shape:
        return float("inf")
    one, other = one.double(), other.double()
    size = one.norm().item()
    gap = (one - other).norm().item()
    return gap / size if size else gap
