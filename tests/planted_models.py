"""Models that hide their gradient in ten ways, and honest ones, for the tests of the verdict on gradient masking.

A mask is a mixin over the class of a trained model: it changes what the model sees, answers or where it looks, and keeps most of its
accuracy.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from models_to_attack import TASK, Net, attack_of, attacked, digits, fit, trained_net
from torch import Tensor, nn

import glimpsezoo as gz
from glimpsezoo.specs import Task


def seen(change: Callable[[Tensor, Any], Tensor], **said: Any) -> Callable[[type], type]:
    """A mask over what the model sees: change(images, state)."""

    def mask(kind: type) -> type:
        def sense(self: Any, images: Tensor, state: Any, regions: Any) -> Any:
            return kind.sense(self, change(images, state), state, regions)

        return type(f"Masked{kind.__name__}", (kind,), {"sense": sense, **said})

    return mask


def answered(change: Callable[[Tensor], Tensor]) -> Callable[[type], type]:
    """A mask over the logits."""

    def mask(kind: type) -> type:
        return type(f"Masked{kind.__name__}", (kind,), {"classify": lambda self, state: change(kind.classify(self, state))})

    return mask


def blind(kind: type) -> type:
    """A locator that no gradient passes."""

    def locate(self: Any, state: Any) -> Any:
        with torch.no_grad():
            return kind.locate(self, state)

    return type(f"Masked{kind.__name__}", (kind,), {"locate": locate})


def hard_places(kind: type) -> type:
    """A locator that takes the nearest of a grid of places."""

    def locate(self: Any, state: Any) -> Any:
        decision = kind.locate(self, state)
        if decision is None:
            return None
        regions = decision.regions
        moved = replace(regions, centre=(regions.centre * 8).round() / 8, scale=(regions.scale * 16).round() / 16)
        return replace(decision, regions=moved, made="searched")

    return type(f"Masked{kind.__name__}", (kind,), {"locate": locate})


def without_surrogate(kind: type) -> type:
    """Hard crops without a gradient in their place."""
    return type(f"Masked{kind.__name__}", (blind(kind),), {"surrogate": property(lambda self: None, lambda self, value: None)})


def jpeg_like(images: Tensor, state: Any) -> Tensor:
    """Rounds the cosine coefficients of each block of 8 x 8 pixels."""
    k = torch.arange(8, dtype=images.dtype)
    dct = torch.cos((2 * k[None] + 1) * k[:, None] * torch.pi / 16) * torch.where(k[:, None] == 0, 8**-0.5, 0.5)
    blocks = images.unfold(2, 8, 8).unfold(3, 8, 8)  # [B, C, h, w, 8, 8]
    rounded = (dct @ blocks @ dct.mT * 10).round() / 10
    pixels = dct.mT @ rounded @ dct
    return pixels.transpose(3, 4).reshape(images.shape)


def shifted(images: Tensor, state: Any) -> Tensor:
    """Moves each image by up to a pixel, otherwise in every run."""
    by = (3 * state.noise.uniform(0, 2)).long() - 1
    return torch.stack([image.roll(tuple(move), (1, 2)) for image, move in zip(images, by.tolist(), strict=True)])


def noisy(images: Tensor, state: Any) -> Tensor:
    noise = state.noise.uniform(1 + state.step, images[0].numel()).view_as(images).to(images)
    return images + 0.05 * (noise - 0.5)


MASKS: dict[str, Callable[[type], type]] = {
    "saturated": answered(lambda logits: 1e4 * logits),
    "quantised": seen(lambda images, state: (images * 12).round() / 12),
    "rounded": answered(lambda logits: (logits * 4).round() / 4),
    "detached": seen(lambda images, state: images.detach()),
    "scaled": seen(lambda images, state: 0.05 * images + (0.95 * images).detach()),
    "random": seen(shifted, stochastic=True),
    "random, undeclared": seen(lambda images, state: images + 0.05 * torch.rand(len(images), 1, 1, 1).to(images)),
    "exploding": seen(lambda images, state: images + 1e-3 * (1e6 * images).sin()),
    "not finite": seen(lambda images, state: images + 0 * (images - images.detach()).abs().sqrt()),
    "defensive noise": seen(noisy, stochastic=True),
    "bit depth": seen(lambda images, state: (images * 7).round() / 7),
    "jpeg-like": seen(jpeg_like),
}
PLACES: dict[str, tuple[str, Callable[[type], type]]] = {
    "hard places, mgnet": ("mgnet.digits", hard_places),
    "blind locator, mgnet": ("mgnet.digits", blind),
    "hard crops, ranzato": ("ranzato.digits", without_surrogate),
    "blind locator, pyramid": ("pyramid-m3.digits", without_surrogate),
}
BASES = ("net", "cnn4.digits", "mgnet.digits")
CARDS = ("cnn4.digits", "mgnet.digits", "ranzato.digits", "pyramid-m3.digits")
MASKED = [*[f"{mask}, {base}" for base in BASES for mask in MASKS], *PLACES]
TRAINED_ON_ATTACKS = ("cnn4.digits.adversarial", "mgnet.digits.adversarial")
HONEST = ["net", *CARDS, *TRAINED_ON_ATTACKS, "trained on attacks, dense", "trained on attacks, convolutions"]
SMALL = [f"{mask}, net" for mask in MASKS]


def planted(name: str) -> Any:
    """The model of a name in `MASKED` or `HONEST`."""
    if name in PLACES:
        base, mask = PLACES[name]
    elif name in MASKED:
        kind, _, base = name.rpartition(", ")
        mask = MASKS[kind]
    else:
        base, mask = name, lambda kind: kind
    if base == "net":
        model = copy.deepcopy(trained_net()[0])
    elif base.startswith("trained on attacks"):
        model = copy.deepcopy(trained_on_attacks(base.rpartition(", ")[2]))
    else:
        model = gz.load(base)
    model.__class__ = mask(type(model))
    return model


def images_for(name: str, count: int, draw: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(images, labels, ids) that the model was made for. draw: another one has other images."""
    if name == "net" or name.endswith(", net") or name.startswith("trained on attacks"):
        _, images, labels = trained_net()
        noise = torch.randn(count, *images.shape[1:], generator=torch.Generator().manual_seed(draw)) * 0.02
        rows = torch.arange(count) % len(images)
        return (images[rows] + noise).clamp(0, 1), labels[rows], torch.arange(count) + 10_000 * draw
    images, labels, ids = digits(2980)
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(draw))[:count]
    return images[rows], labels[rows], ids[rows]


class Convolutions(Net):
    def __init__(self, task: Task = TASK) -> None:
        super().__init__(task)
        layers = (nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.body = nn.Sequential(*layers, nn.Linear(16 * 16, len(task.classes)))


@cache
def trained_on_attacks(kind: str) -> Net:
    """A small network that was trained on images of PGD with three steps (Madry et al., 2018)."""
    images, labels = trained_net()[1:]
    attack = attack_of("pgd", steps=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (Net if kind == "dense" else Convolutions)()
        for _ in range(30):
            model = fit(model, torch.cat([images, attacked(attack, model.eval(), images, labels)]), labels.repeat(2), 5)
    return model
