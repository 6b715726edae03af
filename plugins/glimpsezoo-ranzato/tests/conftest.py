"""A small glimpse model, with weights large enough that places and confidences differ between images; and a second implementation of the
same model, one image at a time, in float64 loops that share only the weights with the plugin."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from glimpsezoo_ranzato.config import RanzatoConfig
from glimpsezoo_ranzato.model import Ranzato
from torch import Tensor

from glimpsezoo import Noise, Task, TrainingPhase

SMALL = {"glimpses": 3, "low_size": 5, "patch": 4, "scales": 2, "hidden": 8}
# Two channels and different height and width, so that a mix-up is detected.
TASK = Task(image_size=(20, 25), channels=2, classes=("a", "b", "c"), mean=(0.4, 0.6), std=(0.3, 0.2))


@pytest.fixture
def small() -> Callable[..., Ranzato]:
    """Makes the model: `small(seed=0, **settings)`."""

    def make(*, seed: int = 0, **settings: Any) -> Ranzato:
        torch.manual_seed(seed)
        model = Ranzato(RanzatoConfig.parse({**SMALL, **settings}, owner="ranzato"), TASK).eval()
        with torch.no_grad():
            for network in (model.low, *model.glimpses):
                network.second.weight.mul_(4)
            for locator in model.locators:
                locator.weight.mul_(4)
        return model

    return make


@pytest.fixture
def images() -> Tensor:
    """[12, 2, 20, 25], pixels in [0, 1]."""
    return torch.rand(12, 2, 20, 25, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> Tensor:
    """[12], of three classes."""
    return torch.arange(12) % 3


@pytest.fixture
def phase() -> Callable[..., TrainingPhase]:
    """What a training step gets: `phase(count, glimpse=1)` for a batch of `count` images."""

    def make(count: int, **options: Any) -> TrainingPhase:
        noise = Noise.of(0, torch.arange(count))
        return TrainingPhase(name="test", options=options, step=0, steps=1, epoch=0, noise=noise, memory={})

    return make


@pytest.fixture
def reference() -> type["Reference"]:
    """The second implementation: `reference(model).run(image)`."""
    return Reference


Location = tuple[float, float]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


class Reference:
    """run: equations 1 to 8. losses: L(z, y) of equations 9, 15, 17 and 18. grid: N(l) of equation 12."""

    def __init__(self, model: Ranzato) -> None:
        self.settings, self.task = model.config, model.task
        self.weights = {name: value.detach().double().numpy() for name, value in model.named_parameters()}

    def run(self, image: np.ndarray, forced: Sequence[Location | None] = ()) -> tuple[list[np.ndarray], list[Location]]:
        """Logits of every step, and the predicted location of every glimpse. forced: places that replace the predicted ones."""
        hidden, low = self._network("low", self._low(image))
        steps, predicted, glimpsed = [low], [], []
        for n in range(self.settings.glimpses):
            evidence = low if self.settings.parallel else low + sum(glimpsed, np.zeros_like(low))
            location = self._predict(n, hidden, evidence)
            predicted.append(location)
            place = forced[n] if n < len(forced) else None
            glimpsed.append(self._glimpse(image, n, place or location))
            steps.append(low + sum(glimpsed) / len(glimpsed))
        return steps, predicted

    def grid(self, location: Location) -> list[Location]:
        """The nine places around a location, (x, y) in [0, 1]."""
        height, width = self.task.image_size
        step = self.settings.search_pixels
        around = itertools.product((-1, 0, 1), repeat=2)
        return [(_clip(location[0] + dx * step / width), _clip(location[1] + dy * step / height)) for dx, dy in around]

    def losses(self, image: np.ndarray, k: int, place: Location) -> np.ndarray:
        """L(z, y) for glimpse k = 1, 2, ... at `place`, for every class y."""
        steps, predicted = self.run(image, [None] * (k - 1) + [place])
        of_place = self.settings.location_weight / 2 * _squared(predicted[k - 1], place) + self.diversity(image, k, place)
        losses = of_place - log_softmax(steps[k])
        return losses - log_softmax(steps[0]) if k == 1 else losses

    def diversity(self, image: np.ndarray, k: int, place: Location) -> float:
        before = self.run(image)[1][: k - 1]
        gamma, variance = self.settings.diversity_weight, self.settings.diversity_variance
        return gamma * sum(math.exp(-0.5 * _squared(place, other) / variance) for other in before)

    def _low(self, image: np.ndarray) -> list[float]:
        channels, height, width = image.shape
        side = self.settings.low_size
        rows, columns = height // side, width // side  # the sides of these images divide
        block = [
            image[c, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].mean()
            for c, i, j in itertools.product(range(channels), range(side), range(side))
        ]
        return [(value - self.task.mean[n // side**2]) / self.task.std[n // side**2] for n, value in enumerate(block)]

    def _glimpse(self, image: np.ndarray, n: int, location: Location) -> np.ndarray:
        patch, scales = self.settings.patch, self.settings.scales
        height, width = self.task.image_size
        widest = patch * 2 ** (scales - 1)
        left = math.floor(location[0] * width - widest / 2 + 0.5)
        top = math.floor(location[1] * height - widest / 2 + 0.5)
        pixels = []
        for scale, c, i, j in itertools.product(range(scales), range(image.shape[0]), range(patch), range(patch)):
            cell = 2**scale
            edge = (widest - patch * cell) // 2
            total = 0.0
            for a, b in itertools.product(range(cell), repeat=2):
                y, x = top + edge + i * cell + a, left + edge + j * cell + b
                total += image[c, y, x] if 0 <= y < height and 0 <= x < width else 0.0
            pixels.append((total / cell**2 - self.task.mean[c]) / self.task.std[c])
        return self._network(f"glimpses.{0 if self.settings.shared else n}", pixels)[1]

    def _network(self, name: str, inputs: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        w = self.weights
        hidden = np.maximum(0, w[f"{name}.first.weight"] @ np.asarray(inputs) + w[f"{name}.first.bias"])
        return hidden, w[f"{name}.second.weight"] @ hidden + w[f"{name}.second.bias"]

    def _predict(self, n: int, hidden: np.ndarray, evidence: np.ndarray) -> Location:
        weight, units = self.weights[f"locators.{n}.weight"], len(hidden)
        x, y = weight[:, :units] @ hidden + weight[:, units:] @ evidence + self.weights[f"locators.{n}.bias"]
        return 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(-y))


def _squared(a: Location, b: Location) -> float:
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)
