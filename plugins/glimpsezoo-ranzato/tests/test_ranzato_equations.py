"""Equations 1 to 8 against plain loops in numpy, and the regions that the model reports."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from glimpsezoo_ranzato.config import RanzatoConfig
from glimpsezoo_ranzato.model import Ranzato
from torch import Tensor

from glimpsezoo import Decision, GlimpseZooError, Noise, Record, Regions, Task, rollout


@pytest.mark.parametrize(
    "settings",
    [{}, {"scales": 1}, {"scales": 1, "patch": 5}, {"parallel": True}, {"shared": True}, {"scales": 3, "patch": 2}],
    ids=str,
)
def test_logits_and_locations_of_every_step(
    small: Callable[..., Ranzato], reference: Any, images: Tensor, settings: dict[str, Any]
) -> None:
    model = small(**settings)
    trace = rollout(model, images, record=Record(every_step=True))
    for row, image in enumerate(images.numpy()):
        logits, locations = reference(model).run(image)
        np.testing.assert_allclose(trace.logits_by_step()[row].detach(), logits, rtol=1e-4, atol=1e-5)
        for look, location in zip(trace.looks[1:], locations, strict=True):
            np.testing.assert_allclose((look.decision.regions.centre[row].detach() + 1) / 2, location, atol=1e-5)
    spread = torch.stack([look.decision.regions.centre for look in trace.looks[1:]])
    assert spread.std() > 0.2, "the locations hardly differ: this test would not see a wrong one"


def test_a_glimpse_of_the_paper_is_one_step_more(small: Callable[..., Ranzato], images: Tensor) -> None:
    model = small(glimpses=2)
    assert model.steps == 3
    assert model.sees == "lowres"
    levels = [look.decision.regions.level.unique().tolist() for look in rollout(model, images).looks]
    assert levels == [[0], [1], [2]]


def test_only_attacks_see_the_surrogate(small: Callable[..., Ranzato], images: Tensor) -> None:
    """In eval mode with gradients on, the second glimpse's place has a gradient; training and trivial policies are unchanged."""
    for settings, training, expected in (({}, False, True), ({}, True, False), ({"policy": "scan"}, False, False)):
        model = small(**settings).train(training)
        place = torch.zeros(len(images), 2, requires_grad=True)
        trace = rollout(model, images, steps=2, choose=lambda images, state, decision, at=place: _at(at) if state.step else decision)
        gradient = torch.autograd.grad(trace.logits.square().sum(), place, allow_unused=True)[0]
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == expected
        with torch.no_grad():
            plain = rollout(model, images, steps=2, choose=lambda images, state, decision, at=place: _at(at) if state.step else decision)
        assert torch.equal(plain.logits, trace.logits)


def test_an_overridden_decision_is_where_it_looks(small: Callable[..., Ranzato], reference: Any, images: Tensor) -> None:
    there = torch.tensor([0.3, -0.7]).expand(len(images), 2)
    trace = rollout(small(), images, steps=2, choose=lambda images, state, decision: decision if state.step == 0 else _at(there))
    loops = reference(small())
    for row, image in enumerate(images.numpy()):
        logits, _ = loops.run(image, [(0.65, 0.15)])
        np.testing.assert_allclose(trace.logits[row].detach(), logits[1], rtol=1e-4, atol=1e-5)


def _at(centre: Tensor) -> Decision:
    return Decision.certain(Regions.one_each(centre, 0.4))


def test_shared_networks_are_one(small: Callable[..., Ranzato]) -> None:
    own, shared = small(), small(shared=True)
    assert len(own.glimpses) == 3
    assert len(shared.glimpses) == 1
    assert len(shared.locators) == 3  # each glimpse has its own location predictor
    spared = 2 * sum(p.numel() for p in own.glimpses[0].parameters())
    assert sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in shared.parameters()) == spared


def test_trivial_policies(small: Callable[..., Ranzato], images: Tensor) -> None:
    def centres(policy: str, seed: int = 0) -> Tensor:
        noise = Noise.of(seed, torch.arange(len(images)))
        looks = rollout(small(policy=policy), images, noise=noise).looks[1:]
        return torch.stack([look.decision.regions.centre for look in looks], 1)  # [B, 3, 2]

    assert torch.equal(centres("centre"), torch.zeros(12, 3, 2))
    scan = centres("scan")
    assert torch.equal(scan[0], scan[1])
    assert len(scan[0].unique(dim=0)) == 3
    random = centres("random")
    assert len(random.flatten(0, 1).unique(dim=0)) == 36
    assert not torch.equal(random, centres("random", seed=1))
    inside = 1 - torch.tensor([4 / 25, 4 / 20])  # a patch of 4 px lies wholly in the image
    assert (random.abs() <= inside).all()
    assert (random.abs() > inside - 0.2).any()
    assert small(policy="random").stochastic
    assert not small().stochastic


def test_settings_that_do_not_fit_are_one_line() -> None:
    for settings, size, words in [
        ({"low_size": 30}, 28, "low_size"),
        ({"patch": 30}, 28, "patch"),
    ]:
        with pytest.raises(GlimpseZooError, match=words) as caught:
            Ranzato(RanzatoConfig.parse(settings, owner="ranzato"), Task((size, size), 1, ("a", "b")))
        assert "\n" not in str(caught.value)
    with pytest.raises(GlimpseZooError, match="even patch"):
        RanzatoConfig.parse({"patch": 7}, owner="ranzato")
    with pytest.raises(GlimpseZooError, match="diversity_weight"):
        RanzatoConfig.parse({"diversity_weigth": 0}, owner="ranzato")
