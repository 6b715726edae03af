"""A model that keeps every rule of the conformance suite, and one fault per rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel, State
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.settings import Settings
from glimpsezoo.specs import Task

TASK = Task(image_size=(16, 16), channels=1, classes=("a", "b", "c"))
SIDE, HIDDEN = 6, 12


class HonestConfig(Settings):
    looks: int = 3
    reach: float = 0.7
    """How far from the image's centre the centres of regions may lie; their scale is 0.3."""


@dataclass(frozen=True, kw_only=True)
class Memory(State):
    """memory: [B, 12]. reads: [B] how often it was classified; only a fault keeps it."""

    memory: Tensor
    reads: Tensor


class Honest(GlimpseModel[Any]):
    """The whole image, then wherever the memory leads."""

    def __init__(self, config: HonestConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task, self.steps = config, task, config.looks
        self.see = nn.Linear(task.channels * SIDE**2, HIDDEN)
        self.keep = nn.Linear(HIDDEN, HIDDEN)
        self.where = nn.Linear(HIDDEN, 2)
        self.head = nn.Linear(HIDDEN, len(task.classes))

    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        memory, reads = images.new_zeros(len(images), HIDDEN), images.new_zeros(len(images))
        return Memory(noise=noise, memory=memory, reads=reads), Decision.certain(Regions.whole_image(images))

    def sense(self, images: Tensor, state: Memory, regions: Regions) -> Tensor:
        scale, zero = regions.scale, torch.zeros_like(regions.scale)
        x, y = regions.centre.unbind(1)
        transform = torch.stack([scale, zero, x, zero, scale, y], 1).view(-1, 2, 3)
        grid = F.affine_grid(transform, [len(regions), images.shape[1], SIDE, SIDE], align_corners=False)
        return self.see(F.grid_sample(images[regions.image], grid, align_corners=False).flatten(1))

    def fuse(self, state: Memory, decision: Decision, features: Tensor) -> Memory:
        return replace(state, memory=torch.tanh(features + self.keep(state.memory)))

    def classify(self, state: Memory) -> Tensor:
        return self.head(state.memory)

    def locate(self, state: Memory) -> Decision:
        centre = self.config.reach * torch.tanh(4 * self.where(state.memory).to(self.where.weight))
        return Decision.certain(Regions.one_each(centre, 0.3), made="regressed")


# One fault per rule, named by the rule that it breaks


class AClassTooMany(Honest):
    def classify(self, state: Memory) -> Tensor:
        logits = super().classify(state)
        return torch.cat([logits, logits[:, :1]], 1)


class DrawsAndDoesNotSay(Honest):
    def locate(self, state: Memory) -> Decision:
        centre = 1.4 * (state.noise.uniform(state.step, 2).to(state.memory) - 0.5)
        return super().locate(replace(state, memory=state.memory + centre[:, :1]))


class SeesItsNeighbours(Honest):
    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, decision = super().start(images, noise)
        return replace(state, memory=state.memory + images.mean()), decision


class CountsRows(Honest):
    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, decision = super().start(images, noise)
        return replace(state, memory=state.memory + torch.arange(len(images))[:, None].to(images) / 10), decision


class RemembersOutsideTheState(Honest):
    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        self.brightness = images.mean((1, 2, 3))
        return super().start(images, noise)

    def fuse(self, state: Memory, decision: Decision, features: Tensor) -> Memory:
        mine = self.brightness[torch.arange(len(features)) % len(self.brightness)]
        return super().fuse(state, decision, features + mine[:, None])


class ForgetsRepeats(Honest):
    @dataclass(frozen=True, kw_only=True)
    class Once(Memory):
        def select(self, index: Tensor) -> Self:
            once = index.unique()
            return replace(self, noise=self.noise.select(index), memory=self.memory[once], reads=self.reads[once])

        @classmethod
        def join(cls, parts: Sequence[Self]) -> Self:
            return cls(**vars(Memory.join([Memory(**vars(part)) for part in parts])))

    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, decision = super().start(images, noise)
        return self.Once(**vars(state)), decision


class JoinsBackwards(Honest):
    @dataclass(frozen=True, kw_only=True)
    class Backwards(Memory):
        @classmethod
        def join(cls, parts: Sequence[Self]) -> Self:
            return cls(**vars(Memory.join([Memory(**vars(part)) for part in reversed(parts)])))

    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        state, decision = super().start(images, noise)
        return self.Backwards(**vars(state)), decision


class TiresOfBeingAsked(Honest):
    def classify(self, state: Memory) -> Tensor:
        state.reads.add_(1)
        return super().classify(state) / state.reads.clone()[:, None]


class LooksBesideTheImage(Honest):
    def locate(self, state: Memory) -> Decision:
        decision = super().locate(state)
        return replace(decision, regions=replace(decision.regions, centre=decision.regions.centre + 0.4))


class WorksHarderForSome(Honest):
    def classify(self, state: Memory) -> Tensor:
        hard = (state.memory[:, 0] > 0).nonzero().squeeze(1)
        more = self.head(self.keep(state.memory[hard]))
        return super().classify(state).index_add(0, hard, more)


class CutsTheGradient(Honest):
    def locate(self, state: Memory) -> Decision:
        return super().locate(replace(state, memory=state.memory.detach()))


class KeepsSomethingBeside(Honest):
    def __init__(self, config: HonestConfig, task: Task) -> None:
        super().__init__(config, task)
        self.bias = torch.randn(len(task.classes))  # neither a parameter nor a buffer

    def classify(self, state: Memory) -> Tensor:
        return super().classify(state) + self.bias


class NeedsEvenSides(Honest):
    def start(self, images: Tensor, noise: Noise) -> tuple[Memory, Decision]:
        halves = images.unflatten(2, (2, -1)).mean((1, 3, 4))  # [B, 2]
        state, decision = super().start(images, noise)
        return replace(state, memory=state.memory + halves[:, :1]), decision


class NeedsCompany(Honest):
    def classify(self, state: Memory) -> Tensor:
        return super().classify(state).squeeze(0)


class NeedsAlternatives(Honest):
    def classify(self, state: Memory) -> Tensor:
        logits = super().classify(state)
        return logits / logits.std(1, keepdim=True, correction=0)


class InsistsOnFloat32(Honest):
    def fuse(self, state: Memory, decision: Decision, features: Tensor) -> Memory:
        return super().fuse(state, decision, features @ torch.eye(HIDDEN))


class RoundsPlaces(Honest):
    def locate(self, state: Memory) -> Decision:
        return Decision.certain(Regions.one_each(self.config.reach * torch.tanh(4 * self.where(state.memory)), 0.3), made="regressed")


FAULTS: dict[str, type[Honest]] = {
    "shapes": AClassTooMany,
    "determinism": DrawsAndDoesNotSay,
    "batch": SeesItsNeighbours,
    "order": CountsRows,
    "compaction": RemembersOutsideTheState,
    "gather": ForgetsRepeats,
    "join": JoinsBackwards,
    "prefix": TiresOfBeingAsked,
    "regions": LooksBesideTheImage,
    "macs": WorksHarderForSome,
    "gradient": CutsTheGradient,
    "round-trip": KeepsSomethingBeside,
    "odd-size": NeedsEvenSides,
    "batch-of-one": NeedsCompany,
    "one-class": NeedsAlternatives,
    "float64": InsistsOnFloat32,
    "bfloat16": RoundsPlaces,
}
OF_OTHERS = ("log-prob", "noise", "policies", "training")  # about models that draw, follow policies or train: test_conformance_decisions.py


def made(kind: Callable[..., Honest] = Honest, config: type[HonestConfig] = HonestConfig, **settings: Any) -> Honest:
    """A model with the same weights in every call, large enough that images and steps differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config(**settings), TASK)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()
