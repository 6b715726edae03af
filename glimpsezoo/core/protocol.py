"""The protocol that every model implements: start, then sense, fuse, classify and locate in every step."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Self, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsezoo.core.batched import Batched
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Task

Phase = Literal["start", "sense", "fuse", "locate", "classify"]
PHASES: tuple[Phase, ...] = ("start", "sense", "fuse", "locate", "classify")
Sees = Literal["none", "lowres", "full image"]
Images = Float[Tensor, "B C H W"]
Precision = Literal["float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, kw_only=True)
class State(Batched):
    """What a model knows of the images of a batch. A plugin subclasses it; `select` gathers images."""

    noise: Noise
    """The images' source of randomness."""
    step: int = 0
    """How many steps are fused into the state: 0 after `start`. `rollout` sets it."""


@dataclass(frozen=True)
class Computing:
    """How a model computes."""

    precision: Precision = "float32"
    """Of convolutions and products, as torch's autocast has it. Weights, places and logits are float32 in any case."""
    compiled: bool = False
    """Whether torch compiles the phases. Their weights are frozen: a change after the first rollout may be ignored."""

    def of(self, name: str) -> str:
        """The name of a model that computes in this way.

        >>> Computing("bf16", compiled=True).of("mgnet"), Computing().of("mgnet")
        ('mgnet compiled in bf16', 'mgnet')
        """
        return f"{name}{' compiled' if self.compiled else ''}{f' in {self.precision}' if self.precision != 'float32' else ''}"


class PaperMacs(NamedTuple):
    """A cost as a paper counts it."""

    convention: str
    """The name of the paper's way of counting."""
    value: float
    """MACs per image, counted this way."""


S = TypeVar("S", bound=State)


class GlimpseModel(nn.Module, ABC, Generic[S]):
    """A classifier that looks at an image in steps. Only `rollout` runs it.

    Images are [B, C, H, W] in [0, 1]; a model normalises, resizes and crops inside. Every phase is a function of its arguments and
    the weights. Nothing is kept between calls, so a state may be gathered, replayed or dropped at any time.
    """

    config: Any
    """The plugin's validated settings."""
    task: Task
    """Image size, channels, classes."""
    steps: int
    """The most steps that the model takes; 1 for a feed-forward model."""
    sees: Sees = "full image"
    """What the model sees of the image in its first step."""
    policy: str = "learned"
    """How the model chooses its regions."""
    stochastic: bool = False
    """Whether decisions are drawn from the images' noise."""
    surrogate: str | None = None
    """What replaces hard choices in the gradient (in eval mode with gradients on); None if nothing does."""
    padding: str | None = None
    """What regions show outside the image; None if they stay inside."""
    card: Any = None
    """The config of the card that the model was loaded from, or None."""
    computing: Computing = Computing()
    """The precision, and whether it is compiled; `rollout` sees to it."""
    training_gradients: bool = False
    """Set it to get the gradients that training changes on purpose (scaled, stopped) in eval mode as well."""

    @abstractmethod
    def start(self, images: Images, noise: Noise) -> tuple[S, Decision]:
        """The state before the first step, with what is computed once (a thumbnail, the levels of a pyramid), and the first decision."""

    @abstractmethod
    def sense(self, images: Images, state: S, regions: Regions) -> Any:
        """The features of N regions: a tensor, or a NamedTuple of tensors, with leading axis N."""

    @abstractmethod
    def fuse(self, state: S, decision: Decision, features: Any) -> S:
        """The state once the `features` of the regions of `decision` are added to it."""

    @abstractmethod
    def classify(self, state: S) -> Float[Tensor, "B classes"]:
        """Logits from the state alone, so that any step can be the last."""

    def locate(self, state: S) -> Decision | None:
        """Where to look next; None if no image takes another step. An image without a region in the decision is finished."""
        return None

    def work(self, phase: Phase, state: S, decision: Decision) -> Int[Tensor, "B"] | int:
        """A key per image, or one for all. Images with the same key cost the same in this phase and step, so each key is counted once.

        decision: that of the step. By default, the cost depends only on the number of the image's regions in this step. A model
        overrides it if its cost depends on more, such as the shape of a tree.
        """
        return 1 if decision.regions.single else decision.regions.counts()

    def paper_macs(self, step: int) -> PaperMacs | None:
        """The cost that the paper prints for a run that stops at `step`; None if it prints none."""
        return None

    def stand_ins(self) -> "Sequence[GlimpseModel[Any]]":
        """Models with other gradients that an attack on this one also searches on, such as one with soft choices in place of hard ones.

        Success counts on this model alone. Each stand-in says in `surrogate` what it replaces.
        """
        return ()

    @classmethod
    def pretrained(cls, config: Any, task: Task) -> Self:
        """A model with the weights that its library publishes (`--checkpoint timm`). Raises `GlimpseZooError` if there are none."""
        raise GlimpseZooError(f"{cls.__name__} has no published weights: train it, or name a card")

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    if TYPE_CHECKING:  # glimpsezoo/api.py attaches these: the functions of workflows/sharing.py

        @classmethod
        def from_pretrained(cls, name: str | Path, *, revision: str | None = None, **settings: Any) -> Self: ...

        def save_pretrained(self, folder: str | Path) -> None: ...

        def push_to_hub(self, repository: str, *, private: bool = False) -> str: ...
