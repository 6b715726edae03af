"""The feed-forward case: what a subclass of `FeedForward` has to say, and the default training step."""

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import TASK, Peek, batch_of_images, toy

from glimpsezoo import (
    Decision,
    FeedForward,
    GlimpseModel,
    GlimpseZooError,
    Meter,
    Noise,
    Normalise,
    Record,
    Settings,
    Task,
    TrainingPhase,
    cross_entropy_step,
    rollout,
)
from glimpsezoo.testing import check_model

OTHER = Task((16, 16), 3, ("a", "b", "c"), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


class Modules(FeedForward):
    """Both parts are modules."""

    def __init__(self, config: Settings, task: Task) -> None:
        super().__init__(config, task)
        self.features = nn.Sequential(Normalise(task), nn.Conv2d(task.channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(16, len(task.classes))


class Parts(NamedTuple):
    left: Tensor  # [B, 1]
    right: Tensor  # [B, 1]


class Methods(FeedForward):
    """Both parts are methods, the features are two tensors, and the images are resized before."""

    def __init__(self, config: Settings, task: Task) -> None:
        super().__init__(config, task)
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def prepared(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2)

    def features(self, images: Tensor) -> Parts:
        return Parts(images[..., :4].mean((1, 2, 3))[:, None], images[..., 4:].mean((1, 2, 3))[:, None])

    def head(self, features: Parts) -> Tensor:
        return (features.left - features.right) * self.scale


def made(kind: type[FeedForward], task: Task = TASK) -> FeedForward:
    torch.manual_seed(0)
    return kind(Settings(), task).eval()


def phase(images: Tensor) -> TrainingPhase:
    noise = Noise.of(0, torch.arange(len(images)))
    return TrainingPhase(name="main", options={}, step=0, steps=1, epoch=0, noise=noise, memory={})


def test_logits_are_the_head_of_the_features_of_the_prepared_images() -> None:
    images = torch.rand(4, 3, 16, 16)
    model = made(Modules, OTHER)
    expected = (images - torch.tensor(OTHER.mean)[:, None, None]) / torch.tensor(OTHER.std)[:, None, None]
    for layer in [*list(model.features)[1:], model.head]:  # type: ignore[call-overload]
        expected = layer(expected)
    assert torch.equal(rollout(model, images).logits, expected)
    halves = images.mean(1)
    difference = halves[..., :8].mean((1, 2)) - halves[..., 8:].mean((1, 2))
    expected = difference[:, None] * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(rollout(made(Methods, OTHER), images).logits, expected)


@pytest.mark.parametrize("kind", [Modules, Methods])
def test_a_model_of_features_and_head_keeps_every_rule(kind: type[FeedForward]) -> None:
    model = made(kind)
    assert (model.steps, model.policy, model.sees, model.stochastic) == (1, "whole image", "full image", False)
    assert [finding for finding in check_model(model, batch_of_images(8)) if finding.status == "failed"] == []


def test_features_cost_as_sense_and_the_head_as_classify() -> None:
    trace = rollout(made(Modules), batch_of_images(2), record=Record(meter=Meter(made(Modules))))
    assert trace.macs is not None
    phases = {name: macs.tolist() for name, macs in trace.macs.stopped_at(1).items()}
    convolution, linear = 4 * 14 * 14 * 9, 16 * 3
    assert phases == {"start": [0, 0], "sense": [convolution] * 2, "fuse": [0, 0], "locate": [0, 0], "classify": [linear] * 2}


def test_the_statistics_of_the_task_are_no_weights() -> None:
    model = made(Modules, OTHER)
    assert not [name for name in model.state_dict() if name.endswith(("mean", "std"))]
    assert model.double().features[0].mean.dtype == torch.float64  # type: ignore[index]
    views = torch.rand(2, 5, 3, 4, 4)  # several views per image
    normalise = Normalise(OTHER)
    assert torch.equal(normalise(views)[:, 3], normalise(views[:, 3]))


@pytest.mark.parametrize("part", [{"centre": 0.2}, {"scale": 0.5}])
def test_a_part_of_the_image_is_refused(part: dict[str, float]) -> None:
    def elsewhere(images: Tensor, state: object, decision: Decision) -> Decision:
        regions = decision.regions
        changes = {name: getattr(regions, name) * 0 + value for name, value in part.items()}
        return replace(decision, regions=replace(regions, **changes))

    with pytest.raises(GlimpseZooError, match=r"^Modules .* the whole image, got "):
        rollout(made(Modules), batch_of_images(3), choose=elsewhere)


@pytest.mark.parametrize("model", [made(Modules), toy(Peek)], ids=["feed-forward", "steps"])
def test_the_default_training_step_is_cross_entropy_of_the_last_step(model: GlimpseModel[Any]) -> None:
    images, labels = batch_of_images(6), torch.arange(6) % 3
    (name, loss), *others = cross_entropy_step(model, images, labels, phase(images)).items()
    probability = rollout(model, images).logits.softmax(1)
    assert (name, others) == ("cross_entropy", [])
    torch.testing.assert_close(loss, -sum(probability[i, label].log() for i, label in enumerate(labels.tolist())) / 6)
    loss.backward()
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_the_default_training_step_takes_the_training_phases_noise() -> None:
    seen = []

    class Noisy(Methods):
        def start(self, images: Tensor, noise: Noise) -> tuple[Any, Decision]:
            seen.append(noise)
            return super().start(images, noise)

    images = batch_of_images(3)
    given = phase(images)
    cross_entropy_step(made(Noisy), images, torch.tensor([0, 1, 2]), given)
    assert seen == [given.noise]
