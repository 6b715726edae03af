"""How RAM and DRAM learn: the terms of the loss against formulas written out, what each of them trains, and that a place is learned."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_ram.config import DramConfig, RamConfig
from glimpsezoo_ram.dram import DRAM
from glimpsezoo_ram.model import RAM
from glimpsezoo_ram.policy import Drawn
from glimpsezoo_ram.training import training_step
from torch import Tensor

from glimpsezoo import GlimpseZooError, Noise, Task, TrainingPhase, monte_carlo, rollout

TASK = Task((16, 16), 1, ("a", "b", "c"))


def phase(step: int = 0, images: int = 6, **options: Any) -> TrainingPhase:
    return TrainingPhase(
        name="all", options=options, step=step, steps=1, epoch=0, noise=Noise.of(step, torch.arange(images)), memory={}
    )  # fmt: skip


def ram(**settings: Any) -> RAM:
    torch.manual_seed(0)
    return RAM(RamConfig(**{"glimpses": 3, "patch": 4, **settings}), TASK).train()


def dram(**settings: Any) -> DRAM:
    torch.manual_seed(0)
    return DRAM(DramConfig(**{"glimpses": 3, "patch": 10, "scales": 1, "coarse": 12, "filters": 2, "width": 16, **settings}), TASK).train()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("make", [ram, dram])
def test_the_terms_are_those_of_the_bound(make: Any, batch: tuple[Tensor, Tensor]) -> None:
    model = make()
    terms = training_step(model, *batch, phase(samples=2, reinforce_weight=0.5, entropy_weight=0.25))
    samples = monte_carlo(*batch, phase().noise, 2)
    trace = rollout(model, samples.images, noise=samples.noise)
    cross_entropy = reinforce = squared = entropy = 0.0
    drawn = [look.decision for look in trace.looks if isinstance(look.decision, Drawn)]
    assert len(drawn) == (2 if make is ram else 3)  # RAM's first place is uniform
    for i, label in enumerate(samples.labels.tolist()):
        logits = trace.logits[i]
        cross_entropy -= float(logits.log_softmax(0)[label])
        reward = float(int(logits.argmax()) == label)
        for decision in drawn:
            expected = float(model.baseline(decision.evidence[i, 0]))
            squared += (reward - expected) ** 2 / len(drawn)
            reinforce -= float(decision.log_prob[i]) * (reward - expected)
            entropy += float(decision.entropy[i])
    assert float(terms["cross_entropy"]) == pytest.approx(cross_entropy / 12, rel=1e-4)
    assert float(terms["baseline"]) == pytest.approx(squared / 12, rel=1e-4)
    assert float(terms["reinforce"]) == pytest.approx(0.5 * reinforce / 12, rel=1e-4)
    assert float(terms["entropy"]) == pytest.approx(-0.25 * entropy / 12, rel=1e-4)


def test_a_draw_is_scored_by_its_density_before_it_is_clamped(batch: tuple[Tensor, Tensor]) -> None:
    model = ram(deviation=0.9)
    noise = Noise.of(0, torch.arange(6))
    trace = rollout(model, batch[0], noise=noise)
    decision = trace.looks[1].decision
    assert isinstance(decision, Drawn)
    mean = model.locator(decision.evidence[:, 0]).tanh()
    z = noise.normal(1, 2)
    density = (-z.square() / 2 - math.log(0.9) - math.log(2 * math.pi) / 2).sum(1)
    torch.testing.assert_close(decision.log_prob, density, rtol=1e-4, atol=1e-4)
    assert (mean + 0.9 * z).abs().max() > 1
    assert torch.allclose(model.placing.places(decision.regions), (mean + 0.9 * z).clamp(-1, 1), atol=1e-6)
    first = trace.looks[0].decision
    assert first.log_prob.tolist() == pytest.approx([-2 * math.log(2)] * 6)  # uniform in a square of side 2


def trained_by(model: RAM | DRAM, batch: tuple[Tensor, Tensor], term: str) -> set[str]:
    """The networks that get a gradient from a term."""
    model.zero_grad(set_to_none=True)
    training_step(model, *batch, phase(entropy_weight=0.1))[term].backward()
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_each_term_trains_its_own_part(batch: tuple[Tensor, Tensor]) -> None:
    seeing = {"glimpse", "input", "recurrent", "classifier"}
    assert trained_by(ram(), batch, "cross_entropy") == seeing
    assert trained_by(ram(), batch, "reinforce") == {"locator"}
    assert trained_by(ram(), batch, "baseline") == {"baseline"}
    lower = {"image", "place", "lower"}
    assert trained_by(dram(), batch, "cross_entropy") == lower | {"classifier"}
    assert trained_by(dram(), batch, "reinforce") == lower | {"context", "upper", "emission"}
    assert trained_by(dram(), batch, "baseline") == {"baseline"}
    assert trained_by(dram(), batch, "entropy") == lower | {"context", "upper", "emission"}


@pytest.mark.parametrize("settings", [{"decide": "mode"}, {"evaluations": 4}], ids=str)
def test_training_draws_single_runs_whatever_testing_does(batch: tuple[Tensor, Tensor], settings: dict[str, Any]) -> None:
    for make in (ram, dram):
        plain, other = (training_step(model, *batch, phase()) for model in (make(), make(**settings)))
        assert {name: float(value) for name, value in plain.items()} == {name: float(value) for name, value in other.items()}


@pytest.mark.parametrize("settings", [{"policy": "random"}, {"policy": "centre"}], ids=str)
def test_without_a_learned_place_only_the_cross_entropy_is_left(batch: tuple[Tensor, Tensor], settings: dict[str, Any]) -> None:
    for model in (ram(**settings), dram(**settings), ram(glimpses=1)):
        assert set(training_step(model, *batch, phase())) == {"cross_entropy"}


def test_unknown_options_are_refused(batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(GlimpseZooError, match="did you mean 'samples'"):
        training_step(ram(), *batch, phase(sample=2))


def test_the_place_that_shows_the_class_is_found() -> None:
    """The class is written at one place, which the first glimpse rarely meets: the second one goes there."""
    torch.manual_seed(0)
    model = RAM(RamConfig(glimpses=2, patch=4, deviation=0.3), Task((16, 16), 1, ("a", "b", "c", "d"))).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    shapes = torch.stack([torch.full((4, 4), 0.2), torch.eye(4), torch.eye(4).flip(1), torch.ones(4, 4)])  # one for each class
    for step in range(150):
        labels = torch.randint(0, 4, (128,))
        images = F.pad(shapes[labels], (10, 2, 10, 2))[:, None]  # at the lower right
        terms = training_step(model, images, labels, phase(step, 128))
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
    trace = rollout(model.eval(), images, noise=Noise.of(0, torch.arange(128)))
    second = trace.looks[1].decision.regions.centre.mean(0)
    assert (second - 0.5).abs().max() < 0.2  # (12, 12) of 16 px
    assert (trace.logits.argmax(1) == labels).float().mean() > 0.6  # chance: .25
