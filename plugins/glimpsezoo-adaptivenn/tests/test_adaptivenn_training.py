"""The loss of AdaptiveNN, against loops over images and fixations; what each term trains; and a training that finds what it must see."""

import math
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_adaptivenn.config import AdaptiveNNConfig
from glimpsezoo_adaptivenn.model import AdaptiveNN, AdaptiveNNState, Located
from glimpsezoo_adaptivenn.plugin import register_models
from glimpsezoo_adaptivenn.training import PhaseOptions, training_step
from torch import Tensor

from glimpsezoo import Decision, GlimpseZooError, Noise, Record, State, Task, Trace, TrainingPhase, rollout, thumbnail
from glimpsezoo.zoo.recipes import find_recipe, recipe_names

Make = Callable[..., AdaptiveNN]
Phase = Callable[..., TrainingPhase]


def drawn(model: AdaptiveNN, images: Tensor, deviation: float) -> Trace:
    """A run at places that are drawn as in training."""

    def choose(batch: Tensor, state: State, decision: Decision) -> Decision:
        assert isinstance(state, AdaptiveNNState)
        return model.drawn(decision, state, deviation) if isinstance(decision, Located) else decision

    noise = Noise.of(0, torch.arange(len(images)))
    return rollout(model, images, choose=choose, noise=noise, record=Record(every_step=True, states=True))


def test_every_prediction_has_a_loss_and_learns_from_the_last_one(small: Make, images: Tensor, labels: Tensor, phase: Phase) -> None:
    model = small().train()
    terms = training_step(model, images, labels, phase(6, smoothing=0.2, distillation=0.5))
    p = drawn(model, images, 0.25).logits_by_step().log_softmax(2).tolist()
    classification = divergence = 0.0
    for k in range(6):
        for step in range(3):
            for c in range(3):
                target = 0.2 / 3 + 0.8 * (c == labels[k].item())
                classification -= target * p[k][step][c] / 6
                divergence += math.exp(p[k][2][c]) * (p[k][2][c] - p[k][step][c]) / 6
    assert terms["classification"].item() == pytest.approx(classification, rel=1e-4)
    assert terms["distillation"].item() == pytest.approx(0.5 * divergence, rel=1e-3)
    whole = F.interpolate(model.normalise(images), size=(20, 20), mode="bicubic")
    own = F.cross_entropy(model.focus_classifier(model.focus(whole)), labels, label_smoothing=0.2)
    assert terms["own"].item() == pytest.approx(2 * own.item(), rel=1e-4)


def test_the_whole_image_is_resized_by_a_sense_of_the_project(
    small: Make, images: Tensor, labels: Tensor, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sides = small().train(), []

    def noted(images: Tensor, size: tuple[int, int], mode: Any) -> Tensor:
        sides.append((size, mode))
        resized = thumbnail(images, size, mode)
        assert torch.equal(resized, F.interpolate(images, size, mode="bicubic", align_corners=False))
        return resized

    monkeypatch.setattr("glimpsezoo_adaptivenn.training.thumbnail", noted)
    training_step(model, images, labels, phase(6))
    assert sides == [((20, 20), "bicubic")]


def test_the_reward_is_the_decrease_of_the_loss_and_the_advantage_is_estimated_as_in_gae(
    small: Make, images: Tensor, labels: Tensor, phase: Phase
) -> None:
    model = small(glimpses=3).train()
    terms = training_step(model, images, labels, phase(6, discount=0.7, trace=0.6))
    trace = drawn(model, images, 0.25)
    loss = [[-trace.logits_by_step()[k, step].log_softmax(0)[labels[k]].item() for step in range(4)] for k in range(6)]
    advantages, values = [], []
    for k in range(6):
        state_values = [model.value(trace.looks[step].state.map[k : k + 1], step).item() for step in range(3)]  # type: ignore[union-attr]
        surprises = []
        for step in range(3):
            following = state_values[step + 1] if step < 2 else 0.0
            surprises.append(loss[k][step] - loss[k][step + 1] + 0.7 * following - state_values[step])
        advantages.append([sum((0.7 * 0.6) ** (later - step) * surprises[later] for later in range(step, 3)) for step in range(3)])
        values.append(state_values)
    flat = [each for row in advantages for each in row]
    mean = sum(flat) / 18
    deviation = (sum((each - mean) ** 2 for each in flat) / 17) ** 0.5
    gain = 0.0
    for k in range(6):
        for step in range(3):
            gain += (advantages[k][step] - mean) / deviation * trace.looks[step + 1].decision.log_prob[k].item() / 18
    assert terms["policy"].item() == pytest.approx(-gain, rel=1e-3, abs=1e-5)
    assert terms["value"].item() == pytest.approx(sum(each**2 for each in flat) / 18, rel=1e-3)


def test_places_are_drawn_ever_nearer_to_the_mean(phase: Phase) -> None:
    def deviation(step: int) -> float:
        return PhaseOptions().deviation(phase(1, step=step))

    assert deviation(0) == 0.25
    assert deviation(5) == pytest.approx(0.175)
    assert deviation(10) == pytest.approx(0.1)
    assert deviation(2) == pytest.approx(0.1 + 0.15 * 0.90451, abs=1e-5)


def test_each_term_trains_its_own_networks(small: Make, images: Tensor, labels: Tensor, phase: Phase) -> None:
    model = small().train()

    def trained_by(*terms: str) -> set[str]:
        model.zero_grad(set_to_none=True)
        found = training_step(model, images, labels, phase(6))
        torch.stack([found[term] for term in terms]).sum().backward()
        return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    assert trained_by("classification", "distillation") == {"glance", "focus", "classifiers", "reader", "writer"}
    assert trained_by("own") == {"focus", "focus_classifier"}
    assert trained_by("policy") == {"locator"}
    assert trained_by("value") == {"value"}


def test_under_another_policy_the_representation_learns_alone(small: Make, images: Tensor, labels: Tensor, phase: Phase) -> None:
    model = small(policy="random").train()
    assert set(training_step(model, images, labels, phase(6, distillation=0))) == {"classification", "own"}
    assert set(training_step(model, images, labels, phase(6, own_weight=0))) == {"classification", "distillation"}


@pytest.mark.parametrize(
    ("options", "part"),
    [({"discounts": 1}, "phase 'test'"), ({"trace": 2}, "trace"), ({"own_side": 21}, "own_side to be a multiple of token=4, got 21")],
)
def test_options_that_cannot_be_are_errors(
    options: dict[str, Any], part: str, small: Make, images: Tensor, labels: Tensor, phase: Phase
) -> None:
    with pytest.raises(GlimpseZooError, match=part) as caught:
        training_step(small(), images, labels, phase(6, **options))
    assert "\n" not in str(caught.value)


def test_the_fixation_goes_where_the_class_is_written() -> None:
    """Bright or dark squares, always at the lower right, which the glance's interpolation averages to grey: one training finds them."""
    torch.manual_seed(1)
    settings = {"glimpses": 1, "patch": 8, "token": 4, "width": 16, "depth": 2, "head_depth": 1, "attention_heads": 2, "window": 1}
    settings |= {"locator_channels": 8, "locator_hidden": 16, "drop_path": 0.0}
    model = AdaptiveNN(AdaptiveNNConfig.parse(settings, owner="adaptivenn"), Task((32, 32), 1, ("dark", "bright"))).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    inner = (0.5 + 0.1875) / 1.1875  # bicubic weights in the middle of four pixels: -.09375, .59375, .59375, -.09375
    bright = torch.tensor([1.0, inner, inner, 1.0]).repeat(3).expand(12, 12)
    for step in range(80):
        labels = torch.randint(0, 2, (64,))
        images = F.pad(torch.stack([1 - bright, bright])[labels], (16, 4, 16, 4), value=0.5)[:, None]
        noise, options = Noise.of(step, torch.arange(64)), {"own_weight": 0, "smoothing": 0, "first_deviation": 0.5}
        phase = TrainingPhase(name="test", options=options, step=step, steps=80, epoch=0, noise=noise, memory={})
        optimiser.zero_grad()
        torch.stack(list(training_step(model, images, labels, phase).values())).sum().backward()
        optimiser.step()
    trace = rollout(model.eval(), images, record=Record(every_step=True))
    right = (trace.logits_by_step().argmax(2) == labels[:, None]).float().mean(0)
    assert right[0] < 0.7  # the glance sees nothing
    assert right[1] > 0.95
    place = trace.looks[1].decision
    assert isinstance(place, Located)
    assert place.mean.mean(0).min() > 0.6  # from .5; the crop lies within the square from .67 to .83


def test_every_recipe_is_one_that_the_harness_reads() -> None:
    (spec,) = register_models()
    names = recipe_names(spec)
    texts = {entry.name: entry.read_text() for entry in files("glimpsezoo_adaptivenn.recipes").iterdir() if entry.name.endswith(".toml")}
    assert sorted(f"{name}.toml" for name in names) == sorted(texts)
    assert {"adaptivenn.digits", "adaptivenn.imagenet"} <= set(names)
    for name in names:
        recipe = find_recipe(spec, name)
        config = AdaptiveNNConfig.parse({**spec.defaults.get(name.split(".")[1], {}), **recipe.settings}, owner=name)
        for phase in recipe.phase:
            assert PhaseOptions.parse(phase.options, owner=name).own_side % config.token == 0
        assert texts[f"{name}.toml"].startswith("#")
        assert f"glimpsezoo train adaptivenn --data {name.split('.')[1]}" in texts[f"{name}.toml"]


def test_the_entry_point_and_the_settings_load_neither_torch_nor_timm() -> None:
    code = (
        "import sys, glimpsezoo_adaptivenn.plugin as p, glimpsezoo_adaptivenn.config; p.register_models(); p.register_importers(); "
        "p.register_papers(); print(sorted({'torch', 'timm', 'torchvision', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
