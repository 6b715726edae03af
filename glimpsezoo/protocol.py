"""The protocol that every model implements: start, then sense - fuse - classify - locate, step after step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsezoo.batched import Batched
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.noise import Noise
from glimpsezoo.regions import Decision, Regions
from glimpsezoo.specs import Task, load_string

Phase = Literal["start", "sense", "fuse", "locate", "classify"]
PHASES: tuple[Phase, ...] = ("start", "sense", "fuse", "locate", "classify")
Sees = Literal["none", "lowres", "full image"]
Images = Float[Tensor, "B C H W"]
_SHARING = "glimpsezoo.workflows.sharing"


@dataclass(frozen=True, kw_only=True)
class State(Batched):
    """What a model knows of the images of a batch. A plugin subclasses it; `select` gathers it.

    noise: the images' own randomness. step: how many looks are fused in (0 after `start`; the driver keeps it).
    """

    noise: Noise
    step: int = 0


class PaperMacs(NamedTuple):
    """A cost as a paper counts it: the convention's name and the MACs of one image under it."""

    convention: str
    value: float


S = TypeVar("S", bound=State)


class GlimpseModel(nn.Module, ABC, Generic[S]):
    """A classifier that looks at an image in steps. `rollout` is its only driver.

    Images are [B, C, H, W] in [0, 1]; a model normalises, resizes and crops inside. Every phase is a function of its arguments and
    the weights: nothing is kept between calls, so a state may be gathered, replayed or dropped at will.

    config: the plugin's validated settings. task: image size, channels, classes.
    steps: the most looks that the model takes (1 = the first look). sees: what its first look sees of the image.
    stochastic: whether decisions are drawn from the images' noise.
    surrogate: what stands in for hard choices in the gradient (in eval mode, where gradients are on); None where none does.
    padding: what regions show outside the image; None where they stay inside.
    card: the config of the card that it was loaded from, or None.
    training_gradients: set by whoever wants, in eval mode too, the gradients that training changes on purpose (scaled, stopped).
    """

    config: Any
    task: Task
    steps: int
    sees: Sees = "full image"
    policy: str = "learned"
    stochastic: bool = False
    surrogate: str | None = None
    padding: str | None = None
    card: Any = None
    training_gradients: bool = False

    @abstractmethod
    def start(self, images: Images, noise: Noise) -> tuple[S, Decision]:
        """What is computed once (a thumbnail, the levels of a pyramid), and the first look."""

    @abstractmethod
    def sense(self, images: Images, state: S, regions: Regions) -> Any:
        """Features of N regions: a tensor, or a NamedTuple of tensors, with leading axis N."""

    @abstractmethod
    def fuse(self, state: S, decision: Decision, features: Any) -> S:
        """The state after the looks of `decision` gave `features`."""

    @abstractmethod
    def classify(self, state: S) -> Float[Tensor, "B classes"]:
        """Logits from the state alone, so that any step can be the last."""

    def locate(self, state: S) -> Decision | None:
        """Where to look next; None when no image looks again. An image without a region in the decision is finished."""
        return None

    def work(self, phase: Phase, state: S, decision: Decision) -> Int[Tensor, "B"]:
        """A number for each image: images of equal work cost the same in this phase at this step.

        `decision` is the step's own. The default holds where the cost depends on nothing but how many regions the image looks at
        in this step; a model whose cost depends on more (the shape of its tree) overrides it.
        """
        return decision.regions.counts()

    def paper_macs(self, step: int) -> PaperMacs | None:
        """What the paper's convention prints for a run that stops at `step`; None where the paper prints no cost."""
        return None

    @classmethod
    def pretrained(cls, config: Any, task: Task) -> Self:
        """A model with weights that its own library publishes (`--checkpoint timm`). Raises `GlimpseZooError` where there are none."""
        raise GlimpseZooError(f"{cls.__name__} has no published weights of its own: train it, or name a card")

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, **settings: Any) -> Self:
        """A trained model in eval mode, on the CPU, from the Hub (`owner/name`) or a card's folder.

        revision: a branch, tag or commit of the Hub. settings: what `--set` takes, where it does not contradict the weights.
        Raises `GlimpseZooError` for what cannot be had, and for a card of a model that is none of this class.
        """
        return load_string(f"{_SHARING}:from_pretrained")(cls, name, revision, settings)  # a layer far above, and so by its name

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a card (README.md, config.json, model.safetensors) into a folder, which `run` and `from_pretrained` take.

        A card that is there is replaced, with its evidence. Raises `GlimpseZooError` for a model that no plugin registers.
        """
        load_string(f"{_SHARING}:save_pretrained")(self, Path(folder))

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Publish the model as a card in `owner/name` on the Hub, by one commit, whose address it returns.

        private: make it a private repository. Raises `GlimpseZooError`.
        """
        return load_string(f"{_SHARING}:push_to_hub")(self, repository, private)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
