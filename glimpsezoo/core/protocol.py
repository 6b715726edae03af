"""The protocol of models: start, then sense, fuse, classify and locate in every step; and of policies, which choose where they look."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Self, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsezoo.core.batched import Batched
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.regions import Decision, Made, Regions
from glimpsezoo.errors import GlimpseZooError, did_you_mean
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

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            known = did_you_mean(str(self.precision), PRECISIONS)
            raise GlimpseZooError(f"precision expects float32 or bf16, got {self.precision!r}: {known}")

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


class Policy(ABC):
    """What chooses where a model looks: `rollout` asks it for every decision. It keeps nothing between calls."""

    name: str
    """What results call it; for one that is registered, the name that users type."""
    stochastic: bool = False
    """Whether it draws from the images' noise."""
    reads_own: bool = False
    """Whether it needs the decision of the model's own locator, which runs, and is paid for, only then."""
    tries: int = 0
    """How many looks it takes at every step only to choose one."""
    needs_labels: bool = False
    """Whether it reads the labels, so that what it reaches is an upper bound."""

    @abstractmethod
    def decide(self, model: "GlimpseModel[Any]", images: Images, state: Any, own: Decision | None) -> Decision:
        """The next decision for the images of `state`.

        own: the model's decision: in the first step that of `start`; later that of `locate`, or None unless the policy `reads_own`.
        """

    def next_decision(self, model: "GlimpseModel[Any]", images: Images, state: Any) -> Decision | None:
        """The decision after a step, for which the model's locator runs if the policy reads it; None if no image takes another step."""
        own = model.locate(state) if self.asks(model) else None
        return None if own is None and self.asks(model) else self.decide(model, images, state, own)

    def asks(self, model: "GlimpseModel[Any]") -> bool:
        """Whether the model's own locator runs: if the model has one and the policy reads its decisions."""
        return self.reads_own and model.__class__.locate is not GlimpseModel.locate  # its type may be that of a weak reference

    def obstacle(self, model: "GlimpseModel[Any]") -> str:
        """Why a model of several steps cannot follow the policy, in words; '' if it can."""
        looks_where_told = type(model).look_at is not GlimpseModel.look_at
        return "" if looks_where_told else "it looks only where its own locator says"

    def told(self, noise: Noise, labels: Int[Tensor, "B"]) -> "Policy":
        """The policy with the labels [B] of the images of a run; itself if it needs no labels."""
        return self


class Learned(Policy):
    """The model's own choice."""

    name = "learned"
    reads_own = True

    def decide(self, model: "GlimpseModel[Any]", images: Images, state: Any, own: Decision | None) -> Decision:
        assert own is not None  # because the policy reads it
        return own

    def obstacle(self, model: "GlimpseModel[Any]") -> str:
        return "" if self.asks(model) else "it has no locator of its own"


LEARNED = Learned()


class GlimpseModel(nn.Module, ABC, Generic[S]):
    """A classifier that looks at an image in steps. Only `rollout` runs its phases.

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
    """How the regions are chosen, as results call it: by the model, or by the policy that it follows."""
    follows: Policy = LEARNED
    """What chooses the regions. `follow` sets it."""
    sizes: tuple[float, float] | None = None
    """The smallest and the largest scale that the model chooses for a region, if `look_at` takes a scale."""
    grid: int | None = None
    """Side of the grid of cells that divides each region into the next ones. None: the next region may be anywhere in the image."""
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

    _own: tuple[bool, str | None] | None = None
    """`stochastic` and `surrogate` of the model's own choice, once it follows a policy."""

    def forward(self, images: Float[Tensor, "*shape"]) -> Float[Tensor, "B classes"]:
        """The logits after the last step of images [B, C, H, W] in [0, 1]: `rollout(model, images).logits`.

        Raises `GlimpseZooError` for images of another shape, and what `rollout` raises.
        """
        from glimpsezoo.core.rollout import rollout  # which imports this module

        if images.ndim != 4 or images.shape[1] != self.task.channels:
            raise GlimpseZooError(
                f"expected images [B, {self.task.channels}, H, W] in [0, 1], got {list(images.shape)}: "
                "add or move an axis, or use model.predict, which takes any image"
            )
        return rollout(self, images).logits

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

    @property
    def first_choice(self) -> int:
        """The number of steps taken when another policy first chooses: 0 if the first step sees nothing but a region, else 1."""
        return 0 if self.sees == "none" else 1

    def locate(self, state: S) -> Decision | None:
        """Where to look next; None if no image takes another step. An image without a region in the decision is finished."""
        return None

    def look_at(self, state: S, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given") -> Decision:
        """The decision to look at `place` next, for policies other than the model's own.

        place: (x, y) in [0, 1] of the range of places where a region can lie, so that 0 and 1 are its ends; with a `grid`, of each
        region of the step before. scale: as in `Regions`, for a model that has `sizes`; None leaves it to the model.
        """
        raise GlimpseZooError(f"{type(self).__name__} looks only where its own locator says: let it choose by itself")

    def random_look(self, state: S) -> Decision:
        """What the policy `random` does: by default, it looks at one place per image, uniformly."""
        return self.look_at(state, state.noise.uniform(state.step, 2), made="sampled")

    def random_zoom(self, state: S) -> Decision:
        """A look at a random place in a random size, for a model that has `sizes` (section 5.2 of Berreby et al., "CanViT", 2026).

        A scale s is drawn with the density p(s) proportional to 1 - s, the place uniformly.
        """
        assert self.sizes is not None
        drawn = state.noise.uniform(state.step, 3)
        low, high = self.sizes
        area = (1 - high) ** 2 + drawn[:, 0] * ((1 - low) ** 2 - (1 - high) ** 2)  # of the centres that a region of scale s may have
        return self.look_at(state, drawn[:, 1:], 1 - area.sqrt(), "sampled")

    def follow(self, policy: Policy) -> None:
        """Choose by `policy` from now on, not by what the model followed before. Raises `GlimpseZooError` if the model cannot follow it."""
        if self.steps > 1 and (why := policy.obstacle(self)):
            raise GlimpseZooError(
                f"{type(self).__name__} cannot follow the policy {policy.name!r}, because {why}: "
                "choose another ('glimpsezoo list policies')"
            )
        self._own = self._own or (self.stochastic, self.surrogate)
        others = (policy.stochastic and self.steps > 1, None)
        self.stochastic, self.surrogate = self._own if policy.reads_own else others
        self.follows, self.policy = policy, policy.name

    def following(self, policy: Policy) -> Self:
        """The same model with the same weights, in memory once, that follows `policy`. Raises `GlimpseZooError` like `follow`."""
        twin = copy(self)
        twin.config = self.config.model_copy(update={"policy": policy.name})
        twin.follow(policy)
        return twin

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

    if TYPE_CHECKING:  # glimpsezoo/api.py attaches these: functions of workflows/

        @classmethod
        def from_pretrained(cls, name: str | Path, *, revision: str | None = None, **settings: Any) -> Self: ...

        def save_pretrained(self, folder: str | Path) -> None: ...

        def push_to_hub(self, repository: str, *, private: bool = False) -> str: ...

        def predict(self, images: Any, *, top: int = 5, exit_rule: Any = None, seed: int = 0, batch_size: int = 32) -> list[Any]: ...
