"""The losses and gradients of one training step: of a whole batch, or of a process's share of it."""

from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsezoo.core.computing import autocast
from glimpsezoo.training.adversarial import freely_changed, learn_change, worst_images
from glimpsezoo.training.consistency import consistency
from glimpsezoo.training.job import TrainingJob, TrainingPhase
from glimpsezoo.training.shared import WholeBatchNorm, sum_gradients
from glimpsezoo.zoo.recipes import PhaseRecipe


def set_training_mode(model: nn.Module, phase: PhaseRecipe) -> None:
    """Training mode, except for modules with frozen parameters only: those keep their BatchNorm statistics too."""
    model.train()
    if phase.trainable != ("*",):
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                module.eval()


def compute_gradients(
    job: TrainingJob, phase: PhaseRecipe, images: Float[Tensor, "n C H W"], labels: Int[Tensor, "n"], context: TrainingPhase, whole: int
) -> tuple[list[str], Float[Tensor, "terms"]]:
    """Give every parameter of `job.model` the gradient of the whole batch. Returns the names of the loss's terms, and this share's part.

    images, labels: of this share. whole: images of the batch. The parts of all processes add up to the terms of the whole batch.
    """
    model, share, precision = job.model, context.share, job.recipe.precision
    set_training_mode(model, phase)
    half = precision == "bfloat16" or (precision == "auto" and images.device.type == "cuda")
    with ExitStack() as stack:
        if share.world > 1:
            stack.enter_context(WholeBatchNorm(share))
        with autocast(images.device, bf16=half and images.dtype == torch.float32):
            changed = _changed(job, phase, images, labels, context)
            losses = job.training_step(model, changed, labels, context)
            if phase.augmix:
                losses["consistency"] = consistency(model, images, context.noise, phase.augmix)
        terms = torch.stack(list(losses.values()))
        if share.world > 1:
            terms = terms * (len(images) / whole)
        model.zero_grad(set_to_none=True)
        terms.sum().backward()
    if phase.adversarial and changed.grad is not None:
        learn_change(changed.grad, context.memory, phase.adversarial)
    sum_gradients((p for p in model.parameters() if p.requires_grad), share)
    return list(losses), terms.detach()


def _changed(
    job: TrainingJob, phase: PhaseRecipe, images: Float[Tensor, "n C H W"], labels: Int[Tensor, "n"], context: TrainingPhase
) -> Float[Tensor, "n C H W"]:
    """The images that the training step is given: changed within the budget of adversarial training, if the phase has it."""
    if phase.adversarial is None:
        return images
    if phase.adversarial.method == "free":
        return freely_changed(images, context.memory, phase.adversarial)
    return worst_images(job.model, images, labels, context.noise, phase.adversarial)
