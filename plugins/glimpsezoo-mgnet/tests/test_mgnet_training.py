"""The losses are equations 6 to 8, and a few training steps lower them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_mgnet.cnn4 import CNN4
from glimpsezoo_mgnet.config import CNN4Config, MGNetConfig
from glimpsezoo_mgnet.model import MGNet
from glimpsezoo_mgnet.training import mgnet_step
from torch import Tensor

from glimpsezoo import GlimpseModel, GlimpseZooError, Noise, Record, Task, TrainingPhase, cross_entropy_step, rollout

TASK = Task((48, 48), 1, ("a", "b", "c"))


def phase(count: int, step: int = 0, **options: Any) -> TrainingPhase:
    noise = Noise.of(step, torch.arange(count))
    return TrainingPhase(name="all", options=options, step=step, steps=10, epoch=0, noise=noise, memory={})


def model_of(**settings: Any) -> MGNet:
    torch.manual_seed(0)
    return MGNet(MGNetConfig.parse({"backbone": "cnn4", "downsample": 3, "glimpses": 3, **settings}, owner="mgnet"), TASK).train()


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 1, 48, 48, generator=torch.Generator().manual_seed(2)), torch.arange(count) % 3


def test_the_terms_are_equations_6_to_8_and_the_size_penalty() -> None:
    model, (images, labels) = model_of(alpha=0.3, size_penalty=2.0, scale="0.25,0.5"), batch()
    terms = mgnet_step(model, images, labels, phase(6))
    trace = rollout(model, images, record=Record(every_step=True, states=True))
    log_p = [look.logits.log_softmax(1) for look in trace.looks]  # type: ignore[union-attr]
    expected = -sum(sum(p[i, labels[i]] for i in range(6)) / 6 for p in log_p) / 3
    torch.testing.assert_close(terms["global"], 0.7 * expected)
    h = [look.state.feature @ model.glimpse_classifier.weight.T for look in trace.looks]  # type: ignore[union-attr]
    torch.testing.assert_close(terms["glimpse"], 0.3 * torch.stack([F.nll_loss(x.log_softmax(1), labels) for x in h]).mean())
    sizes = torch.stack([look.decision.regions.scale for look in trace.looks[1:]])  # the locator did not choose the whole image
    torch.testing.assert_close(terms["size"], 2.0 * (sizes - 0.25).mean())
    assert set(terms) == {"global", "glimpse", "size"}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"global", "glimpse"}),
        ({"alpha": 0}, {"global"}),
        ({"size_penalty": 1, "glimpses": 1}, {"global", "glimpse"}),
        ({"size_penalty": 1, "policy": "random"}, {"global", "glimpse"}),
    ],
)
def test_only_terms_that_say_something_are_there(settings: dict[str, Any], names: set[str]) -> None:
    assert set(mgnet_step(model_of(**settings), *batch(), phase(6))) == names


def test_a_phase_may_weigh_the_size_penalty_itself() -> None:
    model = model_of(size_penalty=2.0)
    usual, own, none = (mgnet_step(model, *batch(), phase(6, **options)) for options in ({}, {"size_penalty": 6}, {"size_penalty": 0}))
    torch.testing.assert_close(own["size"], 3 * usual["size"])
    assert set(none) == {"global", "glimpse"}


@pytest.mark.parametrize(
    "options",
    [
        {"penalty": 1},
        {"size_penalty": -1},
        {"size_penalty": "big"},
        {"size_penalty": float("nan")},
        {"size_penalty": True},
        {"sizes_anew": 3},
    ],
)
def test_a_phases_options_that_say_nothing_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(GlimpseZooError, match="phase 'all'"):
        mgnet_step(model_of(), *batch(), phase(6, **options))


def test_regions_may_begin_a_phase_with_the_middle_size_and_only_its_first_step_does_that() -> None:
    model, images = model_of(biases=True, scale="0.2,0.5"), batch()[0]
    with torch.no_grad():
        model.locator.bias[0] = 9.0  # as in a card with regions of the largest size

    def sizes() -> Tensor:
        return torch.cat([look.decision.regions.scale for look in rollout(model, images, record=Record(states=True)).looks[1:]])

    places = model.locator.weight[1:].clone()
    mgnet_step(model, *batch(), phase(6, step=1, sizes_anew=True))
    assert sizes().min() > 0.49
    mgnet_step(model, *batch(), phase(6, step=0, sizes_anew=True))
    torch.testing.assert_close(sizes(), torch.full((12,), 0.35))
    assert torch.equal(model.locator.weight[1:], places)


def test_every_parameter_learns() -> None:
    model = model_of(size_penalty=0.1, biases=True)
    sum(mgnet_step(model, *batch(), phase(6)).values()).backward()  # type: ignore[union-attr]
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert set(without) <= {"key.bias"}  # adding the same number to all scores does not change a softmax


def train_a_little(model: GlimpseModel[Any], step: Any, count: int) -> list[float]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images, labels = batch()
    images[labels == 1] *= 0.2
    images[labels == 2, :, 24:] = 0
    losses = []
    for k in range(count):
        loss = sum(step(model, images, labels, phase(6, k)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_a_few_steps_lower_the_loss() -> None:
    for model, step in ((model_of(), mgnet_step), (CNN4(CNN4Config(), TASK), cross_entropy_step)):
        losses = train_a_little(model, step, 20)
        assert losses[-1] < 0.8 * losses[0]


def test_the_plain_cnns_loss_is_cross_entropy() -> None:
    model, (images, labels) = CNN4(CNN4Config(), TASK), batch()
    terms = cross_entropy_step(model, images, labels, phase(6))
    p = model.head(model.backbone(images)).softmax(1)
    torch.testing.assert_close(terms["cross_entropy"], -p[torch.arange(6), labels].log().mean())


def test_random_glimpses_in_training_come_from_the_phases_noise() -> None:
    model, (images, labels) = model_of(policy="random"), batch()
    first, again, other = (mgnet_step(model, images, labels, phase(6, step))["global"] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
