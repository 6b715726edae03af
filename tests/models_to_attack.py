"""Small trained models for the tests of attacks, and images to attack."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import Peek, batch_of_images, toy

import glimpsezoo as gz
from glimpsezoo.conditions.attacks.base import Attack
from glimpsezoo.conditions.attacks.catalogue import ATTACKS
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.protocol import State
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.catalogue import DIGITS
from glimpsezoo.specs import Task, load_string

SIDE = 8
TASK = Task((SIDE, SIDE), 1, ("a", "b", "c", "d", "e"))


@dataclass(frozen=True, kw_only=True)
class NetState(State):
    feature: Tensor


class Net(gz.GlimpseModel[NetState]):
    """A smooth feed-forward network as a glimpse model with one step."""

    steps, config = 1, None

    def __init__(self, task: Task = TASK) -> None:
        super().__init__()
        self.task = task
        pixels = task.channels * task.image_size[0] * task.image_size[1]
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 32), nn.Tanh(), nn.Linear(32, len(task.classes)))

    def start(self, images: Tensor, noise: gz.Noise) -> tuple[NetState, Decision]:
        return NetState(noise=noise, feature=images.new_zeros(len(images), 0)), Decision.certain(Regions.whole_image(images))

    def sense(self, images: Tensor, state: NetState, regions: Regions) -> Tensor:
        return images[regions.image]

    def fuse(self, state: NetState, decision: Decision, features: Tensor) -> NetState:
        return NetState(noise=state.noise, step=state.step, feature=features)

    def classify(self, state: NetState) -> Tensor:
        return self.body(state.feature)


def fit(model: Any, images: Tensor, labels: Tensor, steps: int = 150) -> Any:
    """Train the model on these images."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(rollout(model.train(), images).logits, labels).backward()
        optimiser.step()
    return model.eval()


def blobs(count: int = 40, side: int = SIDE, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Images with one noisy pattern per class, and their labels."""
    generator = torch.Generator().manual_seed(0)
    patterns = 0.5 + 0.12 * torch.randn(classes, 1, side, side, generator=generator)
    labels = torch.arange(count) % classes
    return (patterns[labels] + 0.08 * torch.randn(count, 1, side, side, generator=generator)).clamp(0, 1), labels


@cache
def trained_net() -> tuple[Net, Tensor, Tensor]:
    images, labels = blobs()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fit(Net(), images, labels), images, labels


@cache
def trained_peek(steps: int = 3) -> tuple[Any, Tensor, Tensor]:
    """A trained glimpse model with several regressed glimpses."""
    images, labels = batch_of_images(24), torch.arange(24) % 3
    return fit(toy(Peek, steps=steps), images, labels, 60), images, labels


@cache
def digits(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """(images, labels, ids), evenly spaced in the test split."""
    data = load_string(DIGITS.source)(DIGITS, "digits", "test", load_string(DIGITS.config)(), None)
    examples = list(data.examples_at(list(range(0, len(data), len(data) // count))[:count]))
    ids = torch.tensor([example.id for example in examples])
    return torch.stack([example.image for example in examples]), torch.tensor([example.label for example in examples]), ids


def attack_of(name: str, rule: ExitRule | None = None, **settings: Any) -> Attack[Any]:
    """An attack from the catalogue."""
    spec = next(spec for spec in ATTACKS if spec.name == name)
    return load_string(spec.attack)(load_string(spec.config).parse(settings, owner=name), rule)


def attacked(attack: Attack[Any], model: Any, images: Tensor, labels: Tensor, ids: Tensor | None = None) -> Tensor:
    return attack.apply(images, labels, torch.arange(len(images)) if ids is None else ids, model)


def accuracy(model: Any, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (rollout(model, images).logits.argmax(1) == labels).float().mean().item()
