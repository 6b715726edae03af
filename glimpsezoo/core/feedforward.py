"""The feed-forward case: a network that sees the whole image once, as a model of one step."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel, State
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.core.rollout import rollout
from glimpsezoo.core.symbolic import exporting
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Task


class Normalise(nn.Module):
    """Brings pixels in [0, 1] to mean 0 and standard deviation 1 per channel, by the statistics of a task.

    The statistics belong to the task, so the state dict does not hold them.

    >>> Normalise(Task((1, 1), 1, ("a",), mean=(0.5,), std=(0.25,)))(torch.ones(1, 1, 1, 1)).item()
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(task.mean).view(-1, 1, 1), persistent=False)  # [C, 1, 1]
        self.register_buffer("std", torch.tensor(task.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "*batch C H W"]) -> Float[Tensor, "*batch C H W"]:
        return (images - self.mean) / self.std


@dataclass(frozen=True, kw_only=True)
class FeedForwardState(State):
    """What a feed-forward model knows of each image."""

    features: Any = None
    """What the model's `features` returned; None before the step."""


class FeedForward(GlimpseModel[FeedForwardState]):
    """A feed-forward network: one step, with the whole image as its one region.

    A subclass defines `features` and `head`, each as a module or as a method. The MACs of `prepared` and `features` count as sense,
    those of `head` as classify.

    >>> class Linear(FeedForward):
    ...     def __init__(self, config, task):
    ...         super().__init__(config, task)
    ...         self.features = nn.Sequential(Normalise(task), nn.Flatten())
    ...         self.head = nn.Linear(task.channels * 8 * 8, len(task.classes))
    >>> rollout(Linear(None, Task((8, 8), 3, ("cat", "dog"))), torch.rand(5, 3, 8, 8)).logits.shape
    torch.Size([5, 2])
    """

    steps = 1
    policy = "whole image"
    features: Callable[..., Any]
    """What `prepared` returned -> features: a tensor, or a NamedTuple of tensors, with leading axis B."""
    head: Callable[..., Any]
    """Features -> logits [B, classes]."""

    def __init__(self, config: Any, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task

    def prepared(self, images: Float[Tensor, "B C H W"]) -> Tensor:
        """Images in [0, 1] as `features` takes them, resized and normalised for example; by default as they are."""
        return images

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[FeedForwardState, Decision]:
        return FeedForwardState(noise=noise), Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: FeedForwardState, regions: Regions) -> Any:
        """Raises `GlimpseZooError` for a region that is only a part of the image."""
        if not exporting() and (regions.centre.any() or (regions.scale != 1).any()):
            raise GlimpseZooError(
                f"{type(self).__name__} looks at the whole image, got a region that is a part of it: leave its decision as it is"
            )
        return self.features(self.prepared(regions.images_of(images)))

    def fuse(self, state: FeedForwardState, decision: Decision, features: Any) -> FeedForwardState:
        return replace(state, features=features)

    def classify(self, state: FeedForwardState) -> Float[Tensor, "B classes"]:
        assert state.features is not None, "classify comes after sense and fuse"
        return self.head(state.features)


@runtime_checkable
class _HasNoise(Protocol):
    """What `cross_entropy_step` needs of a `TrainingPhase`, which belongs to a higher layer."""

    @property
    def noise(self) -> Noise: ...


def cross_entropy_step(
    model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: _HasNoise
) -> dict[str, Float[Tensor, ""]]:
    """The default training step: the cross-entropy of the last step's logits in nats, averaged over the batch.

    A spec names it as `training_step="glimpsezoo:cross_entropy_step"`.
    """
    return {"cross_entropy": F.cross_entropy(rollout(model, images, noise=phase.noise).logits, labels)}
