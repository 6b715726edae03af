"""A second implementation of the paper's recursion, node by node and image by image. The model (eq. 7) and the gradient estimator (eqs. 1,
10 and 11) are compared with it, the latter on a model small enough to enumerate every sequence of locations."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from glimpsezoo_pyramid.architectures import Architecture, Conv, Pool
from glimpsezoo_pyramid.config import PyramidConfig
from glimpsezoo_pyramid.model import Pyramid, PyramidM1, PyramidM3
from glimpsezoo_pyramid.training import training_step
from torch import Tensor
from torch.nn import functional as F

from glimpsezoo import Noise, Task, TrainingPhase, rollout

Attend = Callable[[int, Tensor], list[int]]  # a node's path number and its 9 probabilities -> the cells that are attended


class Parsed(NamedTuple):
    """logits: [classes]. log_prob: log p(l | x), eq. 8a, with a gradient only in the location module."""

    logits: Tensor
    log_prob: Tensor


def parse(model: Pyramid, image: Tensor, attend: Attend) -> Parsed:
    """One image [C, H, W] of the model's own resolution, by recursion over nodes; it does not use regions, states or batches."""
    base = model.architecture.base
    levels = [F.avg_pool2d(model.normalise(image[None]), 2 ** (model.steps - 1 - k))[0] for k in range(model.steps)]
    log_probs = []

    def node(level: int, top: int, left: int, path: int) -> Tensor:
        map_ = model.features(levels[level][None, :, top : top + base, left : left + base])  # [1, f, h, h]
        vector = map_.mean((0, 2, 3))
        if level == model.steps - 1:
            return vector
        p = torch.sigmoid(model.location(map_.detach())[0, :, 0, 0])
        cells = attend(path, p.detach())
        log_probs.extend(torch.log(p[k] if k in cells else 1 - p[k]) for k in range(9))
        if not cells:
            return vector
        grid = torch.zeros(3, 3, len(vector))
        for k in cells:
            row, column = divmod(k, 3)
            grid[row, column] = node(level + 1, 2 * top + row * base // 2, 2 * left + column * base // 2, 9 * path + k + 1)
        fine = model.aggregation(grid.movedim(2, 0)[None])[0, :, 0, 0]
        return model.merging(torch.cat([vector, fine])[None])[0]

    logits = model.classification(node(0, 0, 0, 0)[None])[0]
    return Parsed(logits, torch.stack(log_probs).sum() if log_probs else torch.zeros(()))


@pytest.mark.parametrize("kind", [PyramidM1, PyramidM3], ids=lambda kind: kind.__name__)
def test_eq_7_and_the_draws_image_by_image(kind: type[Pyramid]) -> None:
    torch.manual_seed(0)
    model = kind(PyramidConfig(), Task((56, 56), 2, tuple("0123456789"), mean=(0.2, 0.4), std=(0.5, 0.3))).eval()
    with torch.no_grad():
        model.location.bias.fill_(-2.2)
    images, noise = torch.rand(16, 2, 56, 56), Noise.of(2, torch.arange(16))
    trace = rollout(model, images, noise=noise)
    attended = 0
    for i, image in enumerate(images):

        def draw(path: int, p: Tensor, i: int = i) -> list[int]:
            step = 1 if path == 0 else 2
            uniform = noise.uniform(step, 9, image=torch.tensor([i]), lane=torch.tensor([path]))[0]
            return [k for k in range(9) if uniform[k] < p[k]]

        parsed = parse(model, image, draw)
        torch.testing.assert_close(trace.logits[i], parsed.logits, rtol=1e-5, atol=1e-5)
        attended += trace.regions_by_step()[i].sum().item()
    assert set(trace.last_step.tolist()) == {1, 2, 3}
    assert attended > 25


class Tiny(Pyramid):
    """4 x 4 pixels per crop, two channels, a 2 x 2 feature map."""

    architecture = Architecture("tiny", 4, (Conv(2), Pool(2)))


def tiny(levels: int, active: list[int]) -> tuple[Tiny, Tensor, Tensor]:
    """A model that attends only `active` cells of every grid (the others with probability 1e-13), an image and its label."""
    torch.manual_seed(4)
    side = 4 * 2 ** (levels - 1)
    model = Tiny(PyramidConfig(), Task((side, side), 1, ("a", "b", "c")))
    with torch.no_grad():
        model.location.bias.fill_(-30.0)
        model.location.bias[active] = torch.linspace(-1.2, 0.4, len(active))
        for module in (model.aggregation[0], model.merging[0], model.classification):
            module.weight.mul_(3)  # what is attended matters
    return model, torch.rand(1, 1, side, side), torch.tensor([1])


def subsets(cells: list[int]) -> list[list[int]]:
    return [list(chosen) for n in range(len(cells) + 1) for chosen in itertools.combinations(cells, n)]


def sequences(levels: int, active: list[int]) -> Iterator[dict[int, list[int]]]:
    """Every sequence of locations: the path numbers of the nodes where the location module is applied -> the cells attended there."""

    def grow(nodes: list[int], depth: int) -> Iterator[dict[int, list[int]]]:
        if not nodes or depth == levels - 1:
            yield {}
            return
        for choice in itertools.product(subsets(active), repeat=len(nodes)):
            here = dict(zip(nodes, choice, strict=True))
            below = [9 * path + k + 1 for path, cells in here.items() for k in cells]
            yield from (here | rest for rest in grow(below, depth + 1))

    yield from grow([0], 0)


def exact_gradient(model: Tiny, image: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Eq. 10 by enumeration. The gradient stops before the location module, as in the paper."""
    total, probability = torch.zeros(()), 0.0
    for sequence in sequences(model.steps, ACTIVE[model.steps]):
        parsed = parse(model, image[0], lambda path, _, sequence=sequence: sequence[path])
        log_likelihood = parsed.logits.log_softmax(0)[label[0]]
        p = parsed.log_prob.exp()
        probability += p.item()
        total = total + p.detach() * log_likelihood + p * log_likelihood.detach()
    assert probability == pytest.approx(1, abs=1e-5)
    model.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def estimated_gradients(model: Tiny, image: Tensor, label: Tensor, options: dict[str, Any], runs: int) -> dict[str, Tensor]:
    """What the training step maximises, `runs` times with different draws: name -> [runs, ...]. The reinforce term at lambda_f = 1."""
    gradients: dict[str, list[Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for run in range(runs):
        phase = TrainingPhase(
            name="test", options=options, step=run, steps=runs, epoch=0, noise=Noise.of(run, torch.zeros(1, dtype=torch.long)),
            memory={f"baseline of {model.steps} levels": torch.tensor(-3.0)},
        )  # fmt: skip
        terms = training_step(model, image, label, phase)
        model.zero_grad()
        (terms["cross_entropy"] + terms["reinforce"]).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradients[name].append(-parameter.grad.flatten())
    return {name: torch.stack(values).double() for name, values in gradients.items()}


ACTIVE = {2: list(range(9)), 3: [1, 6]}  # 512 sequences at two levels, 25 at three


@pytest.mark.parametrize("levels", [2, 3])
def test_the_estimator_is_unbiased(levels: int) -> None:
    """With the baseline and without: the mean over 4,000 draws is the exact gradient within statistical error, for every parameter."""
    model, image, label = tiny(levels, ACTIVE[levels])
    exact, runs = exact_gradient(model, image, label), 20
    for baseline in (True, False):
        options = {"samples": 200, "lambda_f": 1.0, "lambda_t": 0.0, "lambda_r": 0.0, "baseline": baseline}
        estimates = estimated_gradients(model, image, label, options, runs)
        assert set(exact) == set(estimates)
        for name, estimate in estimates.items():
            truth, error = exact[name].double().flatten(), estimate.std(0) / runs**0.5
            assert ((estimate.mean(0) - truth).abs() < 4 * error + 1e-6).all(), name
            # The errors are small compared with the estimate, so a missing or halved gradient would be detected.
            assert error.norm() < 0.15 * truth.norm(), name


def test_the_baseline_lowers_the_spread() -> None:
    model, image, label = tiny(2, ACTIVE[2])
    options = {"samples": 100, "lambda_f": 1.0, "lambda_t": 0.0, "lambda_r": 0.0}
    spread = {
        baseline: estimated_gradients(model, image, label, {**options, "baseline": baseline}, 20)["location.bias"].std(0).norm()
        for baseline in (True, False)
    }
    assert spread[True] < 0.8 * spread[False]
