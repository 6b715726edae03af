"""AugMix: its operations against Pillow's, its mixtures, and the loss of its paper against an independent computation."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.spatial.distance import jensenshannon
from scipy.stats import kstest
from torch import Tensor
from toy_models import Peek, batch_of_images, toy

from glimpsezoo import rollout
from glimpsezoo.core.noise import Noise
from glimpsezoo.data import augmix
from glimpsezoo.data.augmix import augmixed
from glimpsezoo.training.consistency import consistency, divergence
from glimpsezoo.zoo.recipes import AugMixRecipe

ALL = {"severity": 3, "width": 3, "depth": 3}


def pictures(count: int, channels: int = 1) -> Tensor:
    """Images of 256 levels with a bright shape: [count, channels, 24, 32] in [0, 1]."""
    grown = torch.nn.functional.interpolate(torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(1)), (24, 32))
    return (255 * grown).round() / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixture_depends_on_the_image_and_its_noise_alone(channels: int) -> None:
    images, noise = pictures(8, channels), Noise.of(3, torch.arange(8))
    found = augmixed(images, noise, **ALL)
    assert found.shape == images.shape
    assert 0 <= found.min() <= found.max() <= 1
    assert (found - images).abs().amax((1, 2, 3)).min() > 0.001
    some = torch.tensor([5, 2])
    assert torch.equal(augmixed(images[some], noise.select(some), **ALL), found[some])
    assert not torch.equal(augmixed(images, Noise.of(4, torch.arange(8)), **ALL), found)


def test_operations_are_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (255 * pictures(1)).to(torch.uint8)
    picture = Image.fromarray(pixels[0, 0].numpy())

    def moved(matrix: tuple[float, ...]) -> Image.Image:
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    by = 0.3
    shift = (32 * by / 3, 24 * by / 3)
    theirs = [
        ImageOps.autocontrast(picture),
        ImageOps.equalize(picture),
        ImageOps.posterize(picture, 3),
        ImageOps.solarize(picture, int(256 * 0.7)),
        picture.rotate(-30 * by, Image.Resampling.BILINEAR),
        None,
        None,
        moved((1, 0, -shift[0], 0, 1, 0)),
        moved((1, 0, 0, 0, 1, -shift[1])),
    ]
    for kind, (operation, expected) in enumerate(zip(augmix.OPERATIONS, theirs, strict=True)):
        if expected is not None:
            found = operation(pixels, by)[0, 0].numpy().astype(int)
            off = np.abs(found - np.asarray(expected).astype(int))[3:-3, 4:-4]  # the edges are blended differently
            assert np.percentile(off, 95) <= 2, kind


@pytest.mark.parametrize(("kind", "axis"), [(5, 1), (6, 0)])
def test_a_shear_moves_lines_in_proportion_to_their_distance_from_the_middle(kind: int, axis: int) -> None:
    """A line through the middle, across the direction of the shear: its ends move by .3 times the level times half its length."""
    pixels = torch.zeros(1, 1, 41, 41, dtype=torch.uint8)
    (pixels if axis else pixels.mT)[0, 0, :, 20] = 255
    found = augmix.OPERATIONS[kind](pixels, 1.0)[0, 0].float()
    found = found if axis else found.T  # one row per place along the line
    middle = (found * torch.arange(41)).sum(1) / found.sum(1).clamp(min=1)
    ends = (middle[35] - middle[5]).abs()
    assert ends == pytest.approx(0.3 * 30, abs=1)


def test_weights_and_shares_have_the_papers_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """With operations that paint an image white, the mixture tells the weights: Beta(1, 1), and Dirichlet(1, 1, 1), whose margin is
    Beta(1, 2)."""
    count, noise = 3000, Noise.of(0, torch.arange(3000))
    black = torch.zeros(count, 1, 1, 1)
    monkeypatch.setattr(augmix, "OPERATIONS", (lambda images, by: torch.full_like(images, 255),))
    share = augmixed(black, noise, **ALL).flatten()  # 1 minus the share of the image itself
    assert kstest(share.numpy(), "uniform").pvalue > 0.001
    real = augmix._change

    def only_first(chains: Tensor, draws: Tensor, goes_on: Tensor, severity: int) -> None:
        real(chains, draws, goes_on & (torch.arange(len(chains)) % 3 == 0), severity)

    monkeypatch.setattr(augmix, "_change", only_first)
    weight = augmixed(black, noise, **ALL).flatten() / share
    assert kstest(weight.numpy(), "beta", (1, 2)).pvalue > 0.001


def test_lengths_of_chains_and_levels_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, int]] = []

    def noted(images: Tensor, by: float) -> Tensor:
        seen.append((by, len(images)))
        return images

    monkeypatch.setattr(augmix, "OPERATIONS", (noted,))
    augmixed(torch.zeros(2000, 1, 1, 1), Noise.of(0, torch.arange(2000)), severity=4, width=1, depth=3)
    steps = [sum(count for _, count in seen[k : k + 8]) for k in (0, 8, 16)]
    assert steps[0] == 2000
    assert steps[1:] == [pytest.approx(2000 * 2 / 3, abs=100), pytest.approx(2000 / 3, abs=100)]
    assert sorted(by for by, _ in seen[:8]) == pytest.approx([-0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4])


def test_the_divergence_is_scipys() -> None:
    logits = 3 * torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    p = logits.double().softmax(2).numpy()
    entropy = lambda q: -(q * np.log(q)).sum(-1)  # noqa: E731
    expected = entropy(p.mean(0)) - entropy(p).mean(0)
    assert float(divergence(logits)) == pytest.approx(expected.mean(), rel=1e-5)
    two = jensenshannon(p[0], p[1], axis=1) ** 2
    assert float(divergence(logits[:2])) == pytest.approx(two.mean(), rel=1e-5)
    assert float(divergence(logits[:1].expand(3, -1, -1))) == pytest.approx(0, abs=1e-6)
    assert float(divergence(1000 * torch.eye(3)[:, None])) == pytest.approx(math.log(3))


def test_the_term_compares_the_image_with_two_mixtures_of_it() -> None:
    model, images, noise = toy(Peek, steps=2), batch_of_images(6), Noise.of(9, torch.arange(6))
    seen: list[Tensor] = []
    sense = model.sense
    model.sense = lambda images, state, regions: [seen.append(images), sense(images, state, regions)][1]  # type: ignore[method-assign]
    value = consistency(model, images, noise, AugMixRecipe(weight=2.0))
    first, second, third = seen[0].chunk(3)
    assert torch.equal(first, images)
    assert not torch.equal(second, third)
    logits = torch.stack([rollout(model, each, noise=noise).logits for each in (first, second, third)])
    assert float(value) == pytest.approx(2 * float(divergence(logits)), rel=1e-4)
    assert value.requires_grad
