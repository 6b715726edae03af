"""The recipes: what each stage trains and what it does not change; and that training on a few made-up images lowers the loss."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from importlib.resources import files
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_ranzato import training
from glimpsezoo_ranzato.baselines import Convolutional, FullyConnected
from glimpsezoo_ranzato.config import ConvolutionalConfig, FullyConnectedConfig, RanzatoConfig
from glimpsezoo_ranzato.model import Ranzato
from torch import Tensor

from glimpsezoo import GlimpseModel, GlimpseZooError, Task, TrainingPhase, cross_entropy_step, rollout
from glimpsezoo.zoo.recipes import PhaseRecipe, Recipe

# Two pixels are an eighth of these images: with the paper's lambda, every search would stay at the prediction.
TINY = {"low_size": 4, "patch": 8, "hidden": 24, "search_pixels": 1.0, "location_weight": 5.0}
FOUR = Task((16, 16), 1, ("a", "b", "c", "d"))
FIRST, SECOND = {"low", "locators.0", "glimpses.0"}, {"locators.1", "glimpses.1"}
SHARED = [FIRST, {"locators.1", "glimpses.0"}]  # the shared network cannot be held fixed
STAGES = {
    "ranzato.jittered-mnist.1": [FIRST],
    "ranzato.jittered-mnist.2": [FIRST, SECOND],
    "ranzato.jittered-mnist.2-finetuned": [FIRST, SECOND, {"glimpses.1"}],
    "ranzato.jittered-mnist.2-long": [{"low"}, FIRST, SECOND],
    "ranzato.jittered-mnist.3": [FIRST, SECOND, {"locators.2", "glimpses.2"}],
    "ranzato.jittered-mnist.1-single": [FIRST],
    "ranzato.jittered-mnist.1-single-no-contrast": [FIRST],
    "ranzato.jittered-mnist.2-parallel": [FIRST, SECOND],
    "ranzato.jittered-mnist.2-no-diversity": [FIRST, SECOND],
    "ranzato.jittered-mnist.2-no-diversity-finetuned": [FIRST, SECOND, {"glimpses.1"}],
    "ranzato.jittered-mnist.2-shared": SHARED,
    "ranzato.mnist.1": [FIRST],
    "ranzato.mnist.1-centre": [{"low", "glimpses.0"}],
    "ranzato.mnist.2": [FIRST, SECOND],
    "ranzato.mnist.2-no-diversity": [FIRST, SECOND],
    "ranzato.digits": [*SHARED, {"glimpses.0"}],
}


def recipe_of(card: str) -> Recipe:
    text = (files("glimpsezoo_ranzato.recipes") / f"{card}.toml").read_text(encoding="utf-8")
    return Recipe.from_toml(text, name=card)


def phases_of(card: str) -> list[PhaseRecipe]:
    """All stages of a card, including those of the card that its recipe starts from."""
    recipe = recipe_of(card)
    return [*(phases_of(recipe.start) if recipe.start else []), *recipe.phase]


def made_up(count: int) -> tuple[Tensor, Tensor]:
    """Images [count, 1, 16, 16] with a 4 x 4 sign anywhere that is unreadable in the down-sampled image, and which of four signs it is."""
    generator = torch.Generator().manual_seed(0)
    signs = (torch.rand(4, 4, 4, generator=generator) > 0.5).float()
    labels = torch.arange(count) % 4
    images = torch.zeros(count, 1, 16, 16)
    for image, label, (y, x) in zip(images, labels, torch.randint(0, 13, (count, 2), generator=generator), strict=True):
        image[0, y : y + 4, x : x + 4] = signs[label]
    return images, labels


def take_steps(
    model: Ranzato, recipe: PhaseRecipe, images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase], steps: int
) -> Iterator[dict[str, Tensor]]:
    """Train what the harness would, on all `images` in every training step; yields the loss terms."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in recipe.trainable))
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    for step in range(steps):
        told = replace(phase(len(images), **recipe.options), step=step)
        losses = training.training_step(model, images, labels, told)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        yield {name: loss.detach() for name, loss in losses.items()}


@pytest.mark.parametrize("card", STAGES)
def test_each_stage_changes_its_own_networks_alone(card: str, phase: Callable[..., TrainingPhase]) -> None:
    recipe = recipe_of(card)
    torch.manual_seed(0)
    model = Ranzato(RanzatoConfig.parse({**recipe.settings, **TINY}, owner=card), FOUR)
    images, labels = made_up(8)
    for stage, expected in zip(phases_of(card), STAGES[card], strict=True):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        list(take_steps(model, stage, images, labels, phase, steps=2))
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert {_network(name) for name in changed} == expected
        whole = {name for name in before if _network(name) in expected}
        assert changed == whole, "a stage left a part of its own networks as it was"


def _network(parameter: str) -> str:
    """glimpses.0.first.weight -> glimpses.0; low.first.weight -> low."""
    parts = parameter.split(".")
    return parts[0] if parts[0] == "low" else ".".join(parts[:2])


def test_a_second_glimpse_may_begin_as_a_copy_of_the_first(phase: Callable[..., TrainingPhase]) -> None:
    images, labels = made_up(8)
    for settings in ({}, {"shared": True}):
        model = Ranzato(RanzatoConfig.parse({**TINY, **settings}, owner="ranzato"), FOUR)
        training.training_step(model, images, labels, phase(8, glimpse=2, copy=True))  # the first step of a phase
        for networks in (model.locators, model.glimpses):
            assert all(torch.equal(*pair) for pair in zip(networks[0].parameters(), networks[-1].parameters(), strict=True))
    later = replace(phase(8, glimpse=2, copy=True), step=1)
    torch.nn.init.zeros_(model.locators[1].weight)
    training.training_step(model, images, labels, later)
    assert not model.locators[1].weight.any()


def test_the_first_network_may_learn_alone(phase: Callable[..., TrainingPhase]) -> None:
    """Glimpse 0 is the cross-entropy of N0, without a glimpse."""
    model = Ranzato(RanzatoConfig.parse(TINY, owner="ranzato"), FOUR)
    images, labels = made_up(8)
    terms = training.training_step(model, images, labels, phase(8, glimpse=0))
    assert list(terms) == ["low"]
    expected = F.cross_entropy(rollout(model, images, steps=1).logits, labels)
    torch.testing.assert_close(terms["low"], expected)
    terms["low"].backward()
    assert {_network(name) for name, parameter in model.named_parameters() if parameter.grad is not None} == {"low"}


@pytest.mark.parametrize(
    "options",
    [
        {"glimpse": -1},
        {"glimpse": 0, "copy": True},
        {"glimpse": 1, "copy": True},
        {"glimpse": 2, "copy": 1},
        {"glimpse": 2, "copies": True},
    ],
)
def test_options_that_say_nothing_are_errors(options: dict[str, Any], phase: Callable[..., TrainingPhase]) -> None:
    model = Ranzato(RanzatoConfig.parse(TINY, owner="ranzato"), FOUR)
    with pytest.raises(GlimpseZooError, match="correct the recipe"):
        training.training_step(model, *made_up(8), phase(8, **options))


def test_the_recipes_differ_from_the_plain_one_in_what_their_rows_say() -> None:
    def settings(variant: str) -> dict[str, Any]:
        chosen = RanzatoConfig.parse(recipe_of(f"ranzato.jittered-mnist.{variant}").settings, owner="ranzato").model_dump()
        plain = RanzatoConfig().model_dump()
        return {key: value for key, value in chosen.items() if value != plain[key]}

    assert settings("2") == settings("2-finetuned") == settings("2-long") == {}
    assert settings("1") == {"glimpses": 1}
    assert settings("3") == {"glimpses": 3}
    assert settings("1-single") == {"glimpses": 1, "scales": 1}
    assert settings("1-single-no-contrast") == {"glimpses": 1, "scales": 1, "contrast_weight": 0.0}
    assert settings("2-parallel") == {"parallel": True}
    assert settings("2-shared") == {"shared": True}
    assert settings("2-no-diversity") == settings("2-no-diversity-finetuned") == {"diversity_weight": 0.0}


def test_training_stage_by_stage_learns_to_look(phase: Callable[..., TrainingPhase]) -> None:
    """The signs are unreadable in the down-sampled image: every stage lowers its loss, and glimpses see what the first step does not."""
    torch.manual_seed(0)
    model = Ranzato(RanzatoConfig.parse({**TINY, "scales": 1}, owner="ranzato"), FOUR)
    images, labels = made_up(32)
    for stage in phases_of("ranzato.jittered-mnist.2-finetuned"):
        losses = [sum(term.item() for term in terms.values()) for terms in take_steps(model, stage, images, labels, phase, steps=150)]
        assert losses[-1] < 0.9 * losses[0], stage.name
    with torch.no_grad():
        errors = [F.cross_entropy(rollout(model, images, steps=step).logits, labels) for step in (1, 3)]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (FullyConnected, FullyConnectedConfig(hidden=32)),
        (FullyConnected, FullyConnectedConfig(hidden=32, low_size=8)),
        (Convolutional, ConvolutionalConfig(filters=8, hidden=16)),
    ],
    ids=["whole", "low", "convolutional"],
)
def test_the_baselines_learn(kind: Callable[..., GlimpseModel[Any]], config: object, phase: Callable[..., TrainingPhase]) -> None:
    torch.manual_seed(0)
    model = kind(config, FOUR)
    images, labels = made_up(32)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(100):
        terms = cross_entropy_step(model, images, labels, phase(32))
        optimiser.zero_grad()
        terms["cross_entropy"].backward()
        optimiser.step()
        losses.append(terms["cross_entropy"].item())
    assert losses[0] == pytest.approx(1.386, abs=0.2)  # four classes, nothing learned
    assert losses[-1] < 0.8 * losses[0]
