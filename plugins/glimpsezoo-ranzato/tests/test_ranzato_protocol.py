"""The rules of the protocol: budgets, batches, order and exits do not change the result of an image."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from glimpsezoo_ranzato.baselines import Convolutional, FullyConnected
from glimpsezoo_ranzato.config import ConvolutionalConfig, FullyConnectedConfig
from glimpsezoo_ranzato.model import Ranzato
from torch import Tensor

from glimpsezoo import Confidence, GlimpseModel, GlimpseZooError, Noise, Record, Task, count_macs, rollout

SETTINGS: list[dict[str, Any]] = [{}, {"policy": "random"}, {"policy": "scan"}, {"parallel": True}, {"shared": True, "scales": 1}]


@pytest.fixture
def images(images: Tensor) -> Tensor:
    """In double precision, with little rounding. The conformance suite tests single precision."""
    return images.double()


def logits(model: GlimpseModel[Any], images: Tensor, ids: Tensor, steps: int | None = None) -> Tensor:
    return rollout(model, images, steps=steps, noise=Noise.of(0, ids), record=Record(every_step=True)).logits_by_step()


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_smaller_budget_is_a_prefix(small: Callable[..., Ranzato], images: Tensor, settings: dict[str, Any]) -> None:
    model, ids = small(**settings).double(), torch.arange(12)
    whole = logits(model, images, ids)
    for steps in (1, 2, 3):
        same(logits(model, images, ids, steps), whole[:, :steps])
    assert not torch.allclose(whole[:, 0], whole[:, 1])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_batch_does_not_matter(small: Callable[..., Ranzato], images: Tensor, settings: dict[str, Any]) -> None:
    model, ids = small(**settings).double(), torch.arange(12)
    whole = logits(model, images, ids)
    alone = torch.cat([logits(model, images[i : i + 1], ids[i : i + 1]) for i in range(12)])
    same(alone, whole)
    order = torch.tensor([7, 3, 11, 0, 5])
    same(logits(model, images[order], ids[order]), whole[order])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_images_that_exit_leave_the_others_alone(small: Callable[..., Ranzato], images: Tensor, settings: dict[str, Any]) -> None:
    model, rule = small(**settings).double(), Confidence(threshold=0.8)
    compacted = rollout(model, images, exit_rule=rule)
    kept = rollout(model, images, exit_rule=rule, compact=False)
    same(compacted.logits, kept.logits)
    assert torch.equal(compacted.last_step, kept.last_step)
    assert len(compacted.last_step.unique()) > 1, "nobody left the batch"
    whole = logits(model, images, torch.arange(12))
    same(compacted.logits, whole[torch.arange(12), compacted.last_step - 1])


@pytest.mark.parametrize(
    ("kind", "config", "sees"),
    [
        (FullyConnected, FullyConnectedConfig(), "full image"),
        (FullyConnected, FullyConnectedConfig(low_size=8), "lowres"),
        (Convolutional, ConvolutionalConfig(filters=4, hidden=8), "full image"),
    ],
)
def test_the_baselines_take_one_look(kind: Callable[..., GlimpseModel[Any]], config: object, sees: str) -> None:
    torch.manual_seed(0)
    model = kind(config, Task((24, 20), 3, ("a", "b"), (0.5,) * 3, (0.2,) * 3)).eval().double()
    assert (model.steps, model.sees) == (1, sees)
    images = torch.rand(5, 3, 24, 20).double()
    trace = rollout(model, images)
    assert trace.last_step.tolist() == [1] * 5
    same(torch.cat([rollout(model, image[None]).logits for image in images]), trace.logits)
    counted = count_macs(lambda: rollout(model, images[:1])).macs
    assert model.paper_macs(1) == ("paper", counted)


def test_baselines_refuse_images_they_cannot_take() -> None:
    for model in (
        lambda: Convolutional(ConvolutionalConfig(), Task((15, 28), 1, ("a", "b"))),
        lambda: FullyConnected(FullyConnectedConfig(low_size=29), Task((28, 28), 1, ("a", "b"))),
    ):
        with pytest.raises(GlimpseZooError, match="expected") as caught:
            model()
        assert "\n" not in str(caught.value)


def test_listing_the_plugin_loads_nothing_heavy() -> None:
    code = (
        "import sys, glimpsezoo_ranzato.plugin as p, glimpsezoo_ranzato.config; "
        "print([s.name for s in p.register_models()], {'torch', 'timm', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['ranzato', 'ranzato-fc', 'ranzato-conv'] set()"
