"""The printed speed-ups of the paper's tables, measured on the models; and the confidence cascade, from actual exits."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_ranzato.baselines import Convolutional, FullyConnected
from glimpsezoo_ranzato.cascade import Cascade, cascade, cascade_of
from glimpsezoo_ranzato.config import ConvolutionalConfig, FullyConnectedConfig, RanzatoConfig
from glimpsezoo_ranzato.model import Ranzato
from torch import Tensor

from glimpsezoo import Confidence, GlimpseModel, GlimpseZooError, Meter, Record, Task, count_macs, rollout
from glimpsezoo.zoo.recipes import Recipe

DIGITS = tuple(str(digit) for digit in range(10))
SIDES = {"jittered-mnist": 48, "mnist": 28}
MODELS = {
    "ranzato": (Ranzato, RanzatoConfig),
    "ranzato-fc": (FullyConnected, FullyConnectedConfig),
    "ranzato-conv": (Convolutional, ConvolutionalConfig),
}


def model_of(card: str) -> GlimpseModel[Any]:
    """The model as its recipe sets it up, untrained."""
    text = (files("glimpsezoo_ranzato.recipes") / f"{card}.toml").read_text(encoding="utf-8")
    model, data, *_ = card.split(".")
    kind, config = MODELS[model]
    settings = config.parse(Recipe.from_toml(text, name=card).settings, owner=card)
    return kind(settings, Task((SIDES[data], SIDES[data]), 1, DIGITS)).eval()


def measured(model: GlimpseModel[Any], step: int) -> dict[str, int]:
    """MACs per image by phase, of a run that stops at `step`."""
    trace = rollout(model, torch.rand(2, 1, *model.task.image_size), steps=step, record=Record(meter=Meter(model)))
    assert trace.macs is not None
    return {phase: int(macs[0]) for phase, macs in trace.macs.stopped_at(trace.last_step).items()}


ROWS = [
    # table 1
    ("ranzato-fc.jittered-mnist", 1, "1.0000"),
    ("ranzato-conv.jittered-mnist", 1, "0.0313"),
    ("ranzato.jittered-mnist.1", 2, "5.096"),
    ("ranzato.jittered-mnist.2", 3, "3.069"),
    ("ranzato.jittered-mnist.2-finetuned", 3, "3.069"),
    ("ranzato.jittered-mnist.2-long", 3, "3.069"),
    ("ranzato.jittered-mnist.3", 4, "2.195"),  # only in the text
    # table 2
    ("ranzato.jittered-mnist.1-single", 2, "7.464"),
    ("ranzato.jittered-mnist.1-single-no-contrast", 2, "7.464"),
    ("ranzato.jittered-mnist.2-parallel", 3, "3.069"),
    ("ranzato.jittered-mnist.2-no-diversity", 3, "3.069"),
    ("ranzato.jittered-mnist.2-no-diversity-finetuned", 3, "3.069"),
    ("ranzato.jittered-mnist.2-shared", 3, "3.069"),
    # table 3
    ("ranzato-fc.mnist", 1, "1.0000"),
    ("ranzato-fc.mnist.downsampled", 1, "7.218"),
    ("ranzato.mnist.1-centre", 2, "3.609"),
    ("ranzato-conv.mnist", 1, "0.0522"),
    ("ranzato.mnist.1", 2, "3.576"),
    ("ranzato.mnist.2", 3, "2.377"),  # only in the text
    ("ranzato.mnist.2-no-diversity", 3, "2.377"),
]


@pytest.mark.parametrize(("card", "step", "speed_up"), ROWS)
def test_every_row_of_the_tables(card: str, step: int, speed_up: str) -> None:
    model = model_of(card)
    assert model.steps == step
    total = sum(measured(model, step).values())
    reference = sum(measured(model_of(f"ranzato-fc.{card.split('.')[1]}"), 1).values())
    assert f"{reference / total:.{len(speed_up) - 2}f}" == speed_up
    paper = model.paper_macs(step)
    assert paper is not None
    assert paper == ("paper", total)


def test_every_recipe_of_the_tables_data_is_a_row() -> None:
    recipes = {entry.name.removesuffix(".toml") for entry in files("glimpsezoo_ranzato.recipes").iterdir() if entry.name.endswith(".toml")}
    assert {name for name in recipes if name.split(".")[1] in SIDES} == {card for card, _, _ in ROWS}


def test_the_parts_at_48_px() -> None:
    assert sum(measured(model_of("ranzato-fc.jittered-mnist"), 1).values()) == 1_157_000
    assert sum(measured(model_of("ranzato-conv.jittered-mnist"), 1).values()) == 36_940_032
    nothing = {"start": 0, "fuse": 0, "classify": 0}
    two_scales, one_scale = model_of("ranzato.jittered-mnist.2"), model_of("ranzato.jittered-mnist.1-single")
    assert measured(two_scales, 1) == {**nothing, "sense": 77_000, "locate": 0}  # the last step predicts no location
    assert measured(two_scales, 2) == {**nothing, "sense": 77_000 + 149_000, "locate": 1_020}
    assert measured(two_scales, 3) == {**nothing, "sense": 77_000 + 2 * 149_000, "locate": 2 * 1_020}
    assert measured(one_scale, 2) == {**nothing, "sense": 77_000 + 77_000, "locate": 1_020}
    for step in (1, 2, 3):
        assert two_scales.paper_macs(step) == ("paper", sum(measured(two_scales, step).values()))


def test_the_meter_counts_what_a_whole_run_takes(small: Callable[..., Ranzato], images: Tensor) -> None:
    for model in (small(), small(policy="random"), small(shared=True, parallel=True)):
        trace = rollout(model, images, record=Record(meter=Meter(model)))
        assert trace.macs is not None
        by_image = sum(trace.macs.stopped_at(trace.last_step).values())
        assert int(torch.as_tensor(by_image).sum()) == count_macs(lambda model=model: rollout(model, images)).macs


def test_a_trivial_policy_runs_no_locator(small: Callable[..., Ranzato], images: Tensor) -> None:
    for policy in ("random", "centre", "scan"):
        model = small(policy=policy)
        trace = rollout(model, images, record=Record(meter=Meter(model)))
        assert trace.macs is not None
        assert trace.macs.locate.sum() == 0
        assert model.paper_macs(2).value == small().paper_macs(2).value - 2 * (8 + 3)


def test_the_cascade_from_real_exits() -> None:
    torch.manual_seed(3)
    model = model_of("ranzato.jittered-mnist.2")
    assert isinstance(model, Ranzato)
    with torch.no_grad():
        for network in (model.low, *model.glimpses):
            network.second.weight.mul_(40)  # confidence on both sides of the threshold at every step
    blocks = torch.rand(100, 1, 6, 6) * torch.linspace(0.2, 1, 100)[:, None, None, None]
    images, labels = F.interpolate(blocks, scale_factor=8), torch.arange(100) % 10
    trace = rollout(model, images, exit_rule=Confidence(threshold=0.95), record=Record(meter=Meter(model)))
    assert trace.macs is not None
    macs = torch.stack(list(trace.macs.stopped_at(trace.last_step, classify_every_step=True).values())).sum(0)

    every = rollout(model, images, record=Record(every_step=True)).logits_by_step()  # [100, 3, 10], nothing exits
    confident = every.softmax(2).amax(2) >= 0.95
    first = [int(row.nonzero()[0]) + 1 if row.any() else 0 for row in confident]  # 0: never
    exits = torch.tensor([step or 3 for step in first])
    right = every[torch.arange(100), exits - 1].argmax(1) == labels
    assert {*first} == {0, 1, 2, 3}, "one of the ways through the cascade was not taken"
    cost = {1: 77_000, 2: 227_020, 3: 377_040}
    assert macs.tolist() == [cost[step] for step in exits.tolist()]

    found = cascade_of(trace, labels, steps=model.steps, threshold=0.95)
    sure = torch.tensor([step > 0 for step in first])
    assert found.classified == pytest.approx([first.count(step) / 100 for step in (1, 2, 3)])
    assert found.rejected == pytest.approx(first.count(0) / 100)
    assert found.error == pytest.approx(1 - right.float().mean().item())
    assert found.error_of_classified == pytest.approx(1 - right[sure].float().mean().item())


def test_the_papers_cascade_costs_what_its_exits_say() -> None:
    """78 % exit after N0, 15 % after the first glimpse, the rest takes both: 9.60 times fewer MACs, not 12 as in the table."""
    model = model_of("ranzato.jittered-mnist.2")
    shares = {1: 78, 2: 15, 3: 7}
    mean = sum(share * sum(measured(model, step).values()) for step, share in shares.items()) / 100
    assert f"{1_157_000 / mean:.2f}" == "9.60"


def test_the_cascade_refuses_rows_of_another_rule() -> None:
    confidence, last, right = torch.tensor([0.99, 0.5]), torch.tensor([1, 2]), torch.tensor([True, True])
    with pytest.raises(GlimpseZooError, match="got 1 that stopped") as caught:
        cascade(confidence, last, right, steps=3, threshold=0.95)
    assert "\n" not in str(caught.value)


def test_a_cascade_in_which_nobody_is_confident() -> None:
    found = cascade(torch.tensor([0.5, 0.6]), torch.tensor([2, 2]), torch.tensor([True, False]), steps=2, threshold=0.95)
    assert found == Cascade(classified=(0.0, 0.0), rejected=1.0, error=0.5, error_of_classified=0.0)
