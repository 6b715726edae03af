"""The losses of the three stages, against loops over images and steps; each stage changes what it should."""

import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
import torch
from glimpsezoo_gfnet.config import GFNetConfig
from glimpsezoo_gfnet.model import GFNet, GFNetState, Located
from glimpsezoo_gfnet.plugin import register_models
from glimpsezoo_gfnet.training import policy_loss, training_step
from torch import Tensor

from glimpsezoo import Decision, GlimpseZooError, Record, Regions, State, TrainingPhase, rollout
from glimpsezoo.zoo.recipes import find_recipe, recipe_names

Make = Callable[..., Any]


@pytest.mark.parametrize("settings", [{"own_loss": 2.0}, {"classifier": "concatenate", "own_loss": 0.5}])
def test_stage_1_is_the_loss_of_every_look_and_of_the_encoders_own_classifiers(
    settings: dict[str, Any], small: Make, images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase]
) -> None:
    model = small(**settings)
    terms = training_step(model, images, labels, phase(6, stage=1))

    def uniform(batch: Tensor, state: State, decision: Decision) -> Decision:
        assert isinstance(state, GFNetState)
        return Decision.certain(model.regions_at(state.noise.uniform(state.step, 2).flip(1))) if state.step else decision  # rows first

    trace = rollout(model, images, choose=uniform, noise=phase(6).noise, record=Record(every_step=True, states=True))
    whole, own = 0.0, 0.0
    for step, look in enumerate(trace.looks, 1):
        encoder = model.focus if step > 1 else model.glance
        for k in range(6):
            whole -= look.logits[k].log_softmax(0)[labels[k]].item() / 18  # type: ignore[index]
            own -= encoder.head(look.state.features[k, -256:]).log_softmax(0)[labels[k]].item() / 18  # type: ignore[union-attr]
    assert terms["classification"].item() == pytest.approx(whole, rel=1e-4)
    assert terms["own"].item() == pytest.approx(settings["own_loss"] * own, rel=1e-4)
    assert len({tuple(look.decision.regions.centre[0].tolist()) for look in trace.looks}) == 3


def test_stage_2_rewards_gains_in_the_probability_of_the_right_class(
    small: Make, images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase]
) -> None:
    model = small(decide="sample")
    trace = rollout(model, images, record=Record(every_step=True, states=True))
    terms = policy_loss(model, trace, labels, 0.7, phase(6))
    p = [look.logits.softmax(1) for look in trace.looks]  # type: ignore[union-attr]
    returns = []
    for k in range(6):
        right = [each[k, labels[k]].item() for each in p]
        second = right[2] - right[1]
        returns.append([right[1] - right[0] + 0.7 * second, second])
    flat = [value for pair in returns for value in pair]
    mean = sum(flat) / 12
    deviation = (sum((value - mean) ** 2 for value in flat) / 11) ** 0.5
    gain = loss = 0.0
    for k in range(6):
        for step in (0, 1):
            decision = trace.looks[step + 1].decision
            assert isinstance(decision, Located)
            target = (returns[k][step] - mean) / (deviation + 1e-5)
            value = model.locator.critic(decision.memory[k]).item()
            gain += (target - value) / 12
            loss += 0.5 * (value - target) ** 2 / 12
    assert terms["policy"].item() == pytest.approx(-gain, rel=1e-3, abs=1e-5)
    assert terms["value"].item() == pytest.approx(loss, rel=1e-3)


def test_the_policys_gradient_is_that_of_the_log_probability_weighted_by_the_advantage(
    small: Make, images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase]
) -> None:
    model = small(decide="sample")
    trace = rollout(model, images, record=Record(every_step=True, states=True))
    (found,) = torch.autograd.grad(
        policy_loss(model, trace, labels, 0.7, phase(6))["policy"], model.locator.actor.weight, retain_graph=True
    )
    with torch.no_grad():
        right = trace.logits_by_step().softmax(2)[torch.arange(6), :, labels]
        first, second = right[:, 1] - right[:, 0], right[:, 2] - right[:, 1]
        returns = torch.stack([first + 0.7 * second, second], 1)
        returns = (returns - returns.mean()) / (returns.std() + 1e-5)
    total = torch.zeros(())
    for step in (0, 1):
        decision = trace.looks[step + 1].decision
        assert isinstance(decision, Located)
        advantage = returns[:, step] - model.locator.critic(decision.memory)[:, 0].detach()
        total = total - (decision.log_prob * advantage).sum() / 12
    (expected,) = torch.autograd.grad(total, model.locator.actor.weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.abs().max() > 0


@pytest.mark.parametrize(("stage", "trained"), [(1, "rest"), (2, "locator"), (3, "rest")])
def test_a_stage_trains_the_policy_or_the_rest(
    stage: int, trained: str, small: Make, images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase]
) -> None:
    model: GFNet = small().train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("locator.") == (trained == "locator"))
    sum(training_step(model, images, labels, phase(6, stage=stage)).values()).backward()  # type: ignore[union-attr]
    got = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    assert got <= wanted
    assert {name.partition(".")[0] for name in wanted} == {name.partition(".")[0] for name in got}


def test_stage_3_looks_around_the_predicted_place_and_stage_1_anywhere(
    small: Make, images: Tensor, labels: Tensor, phase: Callable[..., TrainingPhase]
) -> None:
    model = small().train()
    with torch.no_grad():
        model.locator.actor.weight.zero_()
        model.locator.actor.bias.fill_(-9.0)  # the upper left corner
    for stage in (1, 3):
        places = []

        def noted(place: Tensor, places: list[Tensor] = places) -> Regions:
            places.append(place)
            return GFNet.regions_at(model, place)

        model.regions_at = noted
        training_step(model, images, labels, phase(6, stage=stage))
        drawn = torch.stack(places)[-1]
        assert (drawn.max() > 0.6) == (stage == 1)
        assert len(drawn.unique(dim=0)) > 2  # not all at the mean, which is near 0


@pytest.mark.parametrize(
    ("settings", "options", "part"),
    [
        ({}, {}, "stage"),
        ({}, {"stage": 4}, "stage"),
        ({}, {"stage": 1, "discounts": 1}, "phase 'test'"),
        ({"policy": "random"}, {"stage": 2}, "learned policy and two looks or more, got policy=random"),
        ({"glimpses": 1}, {"stage": 3}, "got 1 look"),
    ],
)
def test_options_that_say_nothing_are_errors(
    settings: dict[str, Any], options: dict[str, Any], part: str, small: Make, images: Tensor, labels: Tensor, phase: Any
) -> None:
    with pytest.raises(GlimpseZooError, match=part):
        training_step(small(**settings), images, labels, phase(6, **options))


def test_every_recipe_is_one_that_the_harness_reads_and_has_the_three_stages() -> None:
    (spec,) = register_models()
    names = recipe_names(spec)
    texts = {entry.name: entry.read_text() for entry in files("glimpsezoo_gfnet.recipes").iterdir() if entry.name.endswith(".toml")}
    assert sorted(f"{name}.toml" for name in names) == sorted(texts)
    assert "gfnet.imagenet" in names
    for name in names:
        recipe = find_recipe(spec, name)
        GFNetConfig.parse({**spec.defaults.get(name.split(".")[1], {}), **recipe.settings}, owner=name)
        assert [phase.options["stage"] for phase in recipe.phase] == [1, 2, 3]
        assert [phase.trainable == ("locator.*",) for phase in recipe.phase] == [False, True, False]
        assert texts[f"{name}.toml"].startswith("#")
        command = f"glimpsezoo train {name}" if name.count(".") > 1 else f"glimpsezoo train gfnet --data {name.split('.')[1]}"
        assert command in texts[f"{name}.toml"]


def test_the_entry_point_and_the_settings_load_neither_torch_nor_timm() -> None:
    code = (
        "import sys, glimpsezoo_gfnet.plugin as p, glimpsezoo_gfnet.config; p.register_models(); p.register_importers(); "
        "p.register_papers(); print(sorted({'torch', 'timm', 'torchvision', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
