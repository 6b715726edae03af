"""The parameters, the optimiser and the learning rate schedule that a recipe asks for."""

import fnmatch

import torch
from torch import nn

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.zoo.recipes import PhaseRecipe, Recipe


def make_optimiser(phase: PhaseRecipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of a training phase. As usual, biases and the gains of normalisation layers have no weight decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": phase.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if phase.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=phase.lr, momentum=phase.momentum, fused=True)
    kind = torch.optim.Adam if phase.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=phase.lr, fused=True)  # one kernel for all parameters, where the default on a CPU has ten per parameter


def make_schedule(phase: PhaseRecipe, optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate schedule of a training phase with this number of optimiser steps."""
    kinds = torch.optim.lr_scheduler
    if phase.schedule == "one-cycle":
        return kinds.OneCycleLR(optimiser, max_lr=phase.lr, total_steps=max(steps, 2))
    if phase.schedule == "cosine":
        return kinds.CosineAnnealingLR(optimiser, T_max=steps)
    if phase.schedule == "step":
        return kinds.MultiStepLR(optimiser, [int(share * steps) for share in phase.milestones], gamma=phase.decay)
    return kinds.ConstantLR(optimiser, factor=1.0)


def choose_trainable(model: nn.Module, phase: PhaseRecipe) -> None:
    """Freeze the parameters that a training phase does not train."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_trains(phase, name))


def check_trainable(model: nn.Module, recipe: Recipe) -> None:
    """Raise `GlimpseZooError` for a phase that trains none of the model's parameters."""
    for phase in recipe.phase:
        if not any(_trains(phase, name) for name, _ in model.named_parameters()):
            raise GlimpseZooError(
                f"expected parameters to train in phase {phase.name!r}, got none that match {', '.join(phase.trainable)}: "
                "correct 'trainable' in the recipe"
            )


def unmatched(model: nn.Module, recipe: Recipe) -> list[str]:
    """A warning per pattern of 'trainable' that is the name of no parameter: it may be misspelt, or of a network that is switched off."""
    names = [name for name, _ in model.named_parameters()]
    patterns = [(phase.name, pattern) for phase in recipe.phase for pattern in phase.trainable if not fnmatch.filter(names, pattern)]
    return [f"warning: no parameter matches {pattern!r}, which phase {phase!r} trains" for phase, pattern in patterns]


def _trains(phase: PhaseRecipe, name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in phase.trainable)
