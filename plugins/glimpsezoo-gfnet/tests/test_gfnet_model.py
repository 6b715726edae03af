"""What GFNet looks at, how it chooses and what it costs, against loops over single images and pixels."""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
import timm
import torch
from glimpsezoo_gfnet.backbones import Encoder, Features
from glimpsezoo_gfnet.config import GFNetConfig
from glimpsezoo_gfnet.costs import parts_of
from glimpsezoo_gfnet.model import GFNet, GFNetState, Located
from torch import Tensor

from glimpsezoo import Decision, GlimpseZooError, Meter, Noise, Record, Regions, State, Task, crop, rollout

Make = Callable[..., GFNet]


def test_a_crop_holds_the_pixels_from_the_floor_of_the_place_and_never_reaches_outside(small: Make, images: Tensor) -> None:
    model = small()
    places = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.25], [0.999, 0.001], [0.33, 0.77], [1.0, 0.0]])
    regions = model.regions_at(places)
    found = crop(images, regions, 16)
    for k, (row, column) in enumerate(places.tolist()):
        top, left = math.floor(row * (40 - 16)), math.floor(column * (48 - 16))
        expected = torch.stack([images[k, :, top + i, left + j] for i in range(16) for j in range(16)], 1).view(2, 16, 16)
        assert torch.equal(found[k], expected)
        centre = [2 * (left + 8) / 48 - 1, 2 * (top + 8) / 40 - 1]  # x, y
        assert regions.centre[k].tolist() == pytest.approx(centre, abs=1e-6)
    assert regions.scale.tolist() == pytest.approx([16 / 48] * 6)


def test_the_place_of_every_whole_pixel_survives_the_round_trip() -> None:
    task = Task((224, 224), 1, ("a", "b"))
    with torch.device("meta"):
        model = GFNet(GFNetConfig.parse({"backbone": "test_efficientnet", "patch": 96, "hidden": 4}, owner="gfnet"), task)
    corner = torch.arange(129)
    regions = model.regions_at(((corner + 0.5) / 128).clamp(max=1)[:, None].expand(129, 2))
    image = torch.arange(224.0).expand(1, 1, 224, 224)  # each pixel says its column
    found = crop(image.expand(129, 1, 224, 224), regions, 96)
    assert found[:, 0, 0, 0].tolist() == corner.tolist()


def test_the_gradient_of_a_pixel_in_a_crop_counts_it_once(small: Make, images: Tensor) -> None:
    """What an attack follows, in eval mode: the pixels' gradient is that of the crop, the place's that of a bilinear one."""

    class Pixels(torch.nn.Module):
        def forward(self, glimpses: Tensor) -> Features:
            return Features(glimpses.flatten(1), glimpses)

    model = small().eval()
    model.focus = Pixels()  # type: ignore[assignment]
    images = images.clone().requires_grad_()
    state, _ = model.start(images, Noise.of(0, torch.arange(len(images))))
    regions = model.regions_at(torch.full((len(images), 2), 0.5))
    seen = model.sense(images, replace(state, step=1), regions)
    (gradient,) = torch.autograd.grad(seen.vector.sum(), images)
    inside = gradient[:, :, 12:28, 16:32]
    assert torch.equal(gradient.count_nonzero(), inside.count_nonzero())
    torch.testing.assert_close(inside, (1 / torch.tensor([0.3, 0.2]))[:, None, None].expand_as(inside))


@pytest.mark.parametrize("settings", [{}, {"classifier": "concatenate", "locator": "conv"}, {"glance_head": True, "resize": "bilinear"}])
def test_a_run_is_the_loop_over_its_parts(settings: dict[str, Any], small: Make, images: Tensor) -> None:
    """The same steps without a driver, one image at a time; the networks that make it up are those of the model."""
    model, images = small(**settings).double(), images.double()
    trace = rollout(model, images, record=Record(every_step=True))
    mean, std = torch.tensor([0.4, 0.6]).view(2, 1, 1), torch.tensor([0.3, 0.2]).view(2, 1, 1)  # float32, as the task's are
    with torch.no_grad():
        for k, image in enumerate((images - mean) / std):
            mode = settings.get("resize", "bicubic")
            seen = model.glance(torch.nn.functional.interpolate(image[None], (16, 16), mode=mode, align_corners=True))
            vectors, memory, places = [seen.vector], images.new_zeros(1, 12), images.new_zeros(1, 10)
            for step in (1, 2, 3):
                if step > 1:
                    places = model.locator.cell(model.locator.encoder(seen.map), places)
                    row, column = torch.sigmoid(model.locator.actor(places))[0].tolist()
                    top, left = math.floor(row * 24), math.floor(column * 32)
                    seen = model.focus(image[None, :, top : top + 16, left : left + 16])
                    vectors.append(seen.vector)
                if model.config.classifier == "gru":
                    memory = model.memory(seen.vector, memory)
                    logits = model.classifiers[0](memory)
                elif step > 1:
                    logits = model.classifiers[step - 2](torch.cat(vectors, 1))
                if step == 1 and model.config.glance_head:
                    logits = model.glance.head(seen.vector)
                torch.testing.assert_close(trace.logits_by_step()[k, step - 1], logits[0], atol=1e-6, rtol=1e-6)
    assert trace.logits_by_step().diff(dim=1).abs().amax((0, 2)).min() > 1e-4


@pytest.mark.parametrize("policy", ["random", "centre", "scan", "saliency"])
def test_trivial_policies_look_where_they_say_and_spare_the_policy_network(policy: str, small: Make, images: Tensor) -> None:
    model = small(policy=policy)
    trace = rollout(model, images, record=Record(meter=Meter(model)))
    centres = torch.stack([look.decision.regions.centre for look in trace.looks[1:]], 1)  # [B, 2, 2]
    if policy == "centre":
        assert centres.abs().max() < 0.05  # to the whole pixel
    if policy == "scan":  # two crops: the upper row of a 2 x 2 raster, at a quarter and three quarters of the range
        top, lefts = math.floor(0.25 * 24), [math.floor(0.25 * 32), math.floor(0.75 * 32)]
        expected = torch.tensor([[2 * (left + 8) / 48 - 1, 2 * (top + 8) / 40 - 1] for left in lefts])
        torch.testing.assert_close(centres, expected.expand(6, 2, 2), atol=1e-6, rtol=0)
    if policy == "random":
        assert len(centres.reshape(-1, 2).unique(dim=0)) > 9
    assert trace.macs is not None
    assert trace.macs.locate.sum() == 0
    paper = model.paper_macs(3)
    assert paper is not None
    assert paper.value < small().paper_macs(3).value  # type: ignore[union-attr]


def test_drawn_places_scatter_around_the_mean_and_are_scored_after_clamping(small: Make, images: Tensor) -> None:
    model, noise = small(decide="sample", deviation=0.4), Noise.of(3, torch.arange(60))
    decision = rollout(model, images[:1].expand(60, -1, -1, -1), steps=2, noise=noise).looks[1].decision
    assert isinstance(decision, Located)
    mean = decision.mean.tolist()
    clamped = 0
    for k, pair in enumerate(noise.uniform(1, 2).tolist()):
        places = [min(max(mean[k][axis] + 0.4 * NormalDist().inv_cdf(pair[axis]), 0.0), 1.0) for axis in (0, 1)]
        clamped += sum(place in (0.0, 1.0) for place in places)
        expected = sum(math.log(NormalDist(mean[k][axis], 0.4).pdf(places[axis])) for axis in (0, 1))
        assert decision.log_prob[k].item() == pytest.approx(expected, abs=1e-3)
        top, left = math.floor(places[0] * 24 + 1e-5), math.floor(places[1] * 32 + 1e-5)
        assert decision.regions.centre[k].tolist() == pytest.approx([2 * (left + 8) / 48 - 1, 2 * (top + 8) / 40 - 1], abs=1e-5)
    assert 0 < clamped < 120
    assert model.stochastic
    assert not small().stochastic


def test_the_policy_remembers_what_it_saw_also_where_its_decision_is_overridden(small: Make, images: Tensor) -> None:
    model = small()

    def elsewhere(batch: Tensor, state: State, decision: Decision) -> Decision:
        return decision if state.step != 1 else Decision.certain(Regions.one_each(torch.zeros(len(batch), 2), 16 / 48))

    def moved(batch: Tensor, state: State, decision: Decision) -> Decision:
        return decision if state.step != 1 else replace(decision, regions=elsewhere(batch, state, decision).regions)

    lost, kept = (rollout(model, images, choose=choose).looks[2].decision for choose in (elsewhere, moved))
    assert isinstance(lost, Located)
    assert isinstance(kept, Located)
    torch.testing.assert_close(lost.mean, kept.mean)
    never = replace(lost, memory=model.locator.remember(torch.zeros(6, *model.glance.map_shape), torch.zeros(6, 10)))
    assert (never.memory - lost.memory).abs().max() > 1e-4


def test_training_passes_no_gradient_from_the_policy_to_the_encoders(small: Make, images: Tensor) -> None:
    for training in (True, False):
        model = small().train(training)
        state, decision = model.start(images, Noise.of(0, torch.arange(6)))
        state = replace(model.fuse(state, decision, model.sense(images, state, decision.regions)), step=1)
        located = model.locate(state)
        located.mean.sum().backward()
        reached = any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.glance.parameters())
        assert reached is not training


@pytest.mark.parametrize("how", ["attacked", "training gradients", "training"])
def test_a_gradient_passes_through_drawn_places_for_attacks_alone(how: str, small: Make, images: Tensor) -> None:
    """A drawn place is its mean plus noise, so that an attack can move it."""
    model = small(decide="sample").train(how == "training")
    model.training_gradients = how == "training gradients"
    trace = rollout(model, images, noise=Noise.of(0, torch.arange(6)))
    (found,) = torch.autograd.grad(trace.logits.square().sum(), model.locator.actor.weight, allow_unused=True)
    assert (found is not None and bool(found.abs().sum() > 0)) is (how == "attacked")


def test_costs_are_the_sum_of_the_parts_that_ran(small: Make, images: Tensor) -> None:
    model = small()
    parts = parts_of(model)
    assert parts.policy == 256 * 2048 + 2048 * 10 + 2 * 3 * 10 * 10 + 10 * 2  # a map of 256 x 1 x 1; a GRU has three gates
    assert parts.classifier == (3 * 12 * (256 + 12) + 12 * 3,) * 3
    assert model.paper_macs(3) == ("paper", 3 * parts.encoder + 2 * parts.policy + sum(parts.classifier))
    trace = rollout(model, images, record=Record(every_step=True, meter=Meter(model)))
    assert trace.macs is not None
    every = sum(trace.macs.stopped_at(3, classify_every_step=True).values())
    assert torch.as_tensor(every).tolist() == [model.paper_macs(3).value] * 6


def test_a_resnet_50_costs_what_the_formula_says() -> None:
    """At 96 px, (96 / 224)^2 of the 4,087,136,256 MACs of its convolutions at 224 px, since every map's side is divided without a rest."""
    with torch.device("meta"):
        model = GFNet(GFNetConfig.parse({}, owner="gfnet"), Task((224, 224), 3, tuple(map(str, range(1000)))))
    parts = parts_of(model)
    assert parts.policy == 2048 * 9 * 2048 + 2048 * 1024 + 6 * 1024 * 1024 + 1024 * 2
    assert parts.classifier == (3 * 1024 * (2048 + 1024) + 1024 * 1000,) * 5
    assert parts.encoder == 4_087_136_256 * 96**2 // 224**2 == 750_698_496


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"backbone": "resnet51"}, "expected a timm model as backbone, got 'resnet51': did you mean"),
        ({"backbone": "test_vit", "patch": 24}, "cannot take glimpses of 2 x 24 x 24 px"),
        ({"patch": 41}, "images of 40 x 48 px, got 41"),
        ({"classifier": "concatenate", "glance_head": False}, "glance_head=true"),
        ({"deviation": 0}, "deviation"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings: dict[str, Any], part: str, small: Make) -> None:
    with pytest.raises(GlimpseZooError, match=part) as caught:
        small(**settings)
    assert "\n" not in str(caught.value)


def test_two_regions_for_one_image_are_refused(small: Make, images: Tensor) -> None:
    model = small()

    def twice(batch: Tensor, state: State, decision: Decision) -> Decision:
        regions = Regions.one_each(torch.zeros(2, 2), 0.5)
        return Decision.certain(replace(regions, image=torch.tensor([0, 0]), batch=1))

    with pytest.raises(GlimpseZooError, match="one region per image, got 2 for 1 images"):
        rollout(model, images[:1], choose=twice)


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout"])  # tokens; channels last
def test_maps_of_any_layout_have_their_channels_second(name: str) -> None:
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    encoder = Encoder(name, 1, 2, 64)
    found = encoder(torch.rand(2, 1, 64, 64))
    assert found.map.shape[:2] == (2, encoder.net.num_features)
    assert found.map.shape[1:] == encoder.map_shape
    assert found.vector.shape == (2, encoder.width)


def test_settings_follow_the_family_unless_they_are_given() -> None:
    def parsed(**values: Any) -> tuple[str, str, bool, int]:
        config = GFNetConfig.parse(values, owner="gfnet")
        return config.classifier, config.locator, config.glance_head, config.locator_hidden

    assert parsed() == parsed(backbone="resnet18") == ("gru", "linear", False, 1024)
    assert parsed(backbone="efficientnet_b0") == ("concatenate", "conv", True, 256)
    assert parsed(backbone="regnety_002") == ("gru", "conv", True, 256)
    assert parsed(backbone="efficientnet_b0", classifier="gru", locator_hidden=8) == ("gru", "conv", False, 8)
    again = GFNetConfig.parse({"backbone": "efficientnet_b0"}, owner="gfnet")
    assert GFNetConfig.parse(again.model_dump(mode="json"), owner="card") == again


def test_a_state_after_the_glance_has_what_the_next_steps_need(small: Make, images: Tensor) -> None:
    state = rollout(small(classifier="concatenate"), images, record=Record(states=True)).looks[2].state
    assert isinstance(state, GFNetState)
    assert state.features.shape == (6, 3 * 256)
    assert state.memory.shape == (6, 0)
