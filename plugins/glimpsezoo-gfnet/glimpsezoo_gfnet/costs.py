"""What the paper counts: multiply-accumulates of convolutions and linear layers, without biases, of everything that a run uses.

A run of t looks uses t encoders, t classifiers (adaptive inference needs every prediction) and, before each crop, the policy. So the
list `flops` of a released checkpoint, whose parts are named `model_flops`, `fc_flops` and `policy_flops`. Resizing and cropping are free.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch

from glimpsezoo import count_macs

if TYPE_CHECKING:
    from glimpsezoo_gfnet.model import GFNet


class Parts(NamedTuple):
    """MACs per use."""

    encoder: int
    """Of one glimpse, without the encoder's own classifier."""
    policy: int
    """Of one place."""
    classifier: tuple[int, ...]
    """Of the prediction after the first look, after the second, and so on."""


def paper_macs(parts: Parts, looks: int) -> int:
    """The cost of a run of `looks` looks.

    >>> paper_macs(Parts(encoder=100, policy=10, classifier=(1, 2, 3)), looks=3)
    326
    """
    return looks * parts.encoder + (looks - 1) * parts.policy + sum(parts.classifier[:looks])


def parts_of(model: "GFNet") -> Parts:
    """The parts of a model, counted on zeros."""
    zeros, config = next(model.parameters()).new_zeros, model.config
    glimpse, map = zeros(1, model.task.channels, config.patch, config.patch), zeros(1, *model.glance.map_shape)
    vector, memory = zeros(1, model.glance.width), zeros(1, config.locator_hidden)
    training = model.training
    model.eval()  # batch statistics stay as they are
    with torch.no_grad():
        encoder = count_macs(lambda: model.glance(glimpse)).macs
        policy = count_macs(lambda: model.locator.mean(model.locator.remember(map, memory))).macs
        recurrent = count_macs(lambda: model.memory(vector, zeros(1, config.hidden))).macs if config.classifier == "gru" else 0
    model.train(training)
    heads = [model.head_of(look).weight.numel() for look in range(1, model.steps + 1)]
    return Parts(encoder, policy, tuple(recurrent + head for head in heads))
