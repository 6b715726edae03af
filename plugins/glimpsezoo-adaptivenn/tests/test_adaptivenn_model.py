"""Where AdaptiveNN looks, how it chooses, what it writes and what it costs, against loops over pixels, tokens and cells."""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
import torch
from glimpsezoo_adaptivenn.config import AdaptiveNNConfig
from glimpsezoo_adaptivenn.costs import paper_macs
from glimpsezoo_adaptivenn.model import AdaptiveNN, Located
from torch import Tensor

from glimpsezoo import Decision, GlimpseZooError, Meter, Noise, Record, Regions, State, Task, rollout

Make = Callable[..., AdaptiveNN]


def crops(model: AdaptiveNN, images: Tensor, places: Tensor) -> Tensor:
    """What the focus net sees at these places, without normalisation."""
    seen = []
    model.focus.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.normalise = torch.nn.Identity()  # type: ignore[assignment]
    state, _ = model.start(images, Noise.of(0, torch.arange(len(images))))
    model.sense(images, replace(state, step=1), model.regions_at(places))
    return seen[0]


SQUARE = Task((48, 48), 2, ("a", "b"))


def test_a_crop_at_a_whole_pixel_holds_the_pixels_and_its_region_says_where_they_are(small: Make) -> None:
    model, images = small(task=SQUARE), torch.rand(5, 2, 48, 48)
    corners = [(0, 0), (32, 32), (12, 8), (32, 0), (1, 31)]  # of 16 x 16 px in 48 x 48
    places = torch.tensor([[top / 32, left / 32] for top, left in corners])
    found, regions = crops(model, images, places), model.regions_at(places)
    for k, (top, left) in enumerate(corners):
        torch.testing.assert_close(found[k], images[k, :, top : top + 16, left : left + 16], atol=1e-4, rtol=0)
        centre = [2 * (left + 8) / 48 - 1, 2 * (top + 8) / 48 - 1]  # x, y
        assert regions.centre[k].tolist() == pytest.approx(centre, abs=1e-6)
    assert regions.scale.tolist() == pytest.approx([16 / 48] * 5)


def test_a_crop_between_pixels_is_there_and_not_at_the_nearest_pixel(small: Make) -> None:
    """In the middle between pixels, bicubic interpolation reproduces a plane, so each pixel says its own place."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    plane = torch.stack([y, x])[None].double()
    found = crops(small(task=SQUARE).double(), plane, torch.tensor([[10.5 / 32, 17.5 / 32]], dtype=torch.float64))[0]
    assert found[0, :, 0].tolist() == pytest.approx([10.5 + i for i in range(16)], abs=1e-6)
    assert found[1, 0].tolist() == pytest.approx([17.5 + i for i in range(16)], abs=1e-6)


def test_a_crop_of_an_image_that_is_not_square_has_its_shape(small: Make) -> None:
    """16 of 48 columns, and the same share of 40 rows; the place is one of the range."""
    y = torch.arange(40.0)[:, None].expand(40, 48)
    ramp = torch.stack([y, y])[None]
    found = crops(small(), ramp, torch.tensor([[0.5, 0.0]]))[0, 0, :, 5]
    assert found.diff().mean().item() == pytest.approx(40 / 48, abs=0.01)
    assert found.mean().item() == pytest.approx(19.5, abs=0.01)


def test_what_a_token_says_is_added_to_the_cells_around_its_place(small: Make) -> None:
    """A loop over tokens and cells, for crops in two corners and in between."""
    model = small().double()
    maps, tokens = torch.randn(3, 16, 16, dtype=torch.float64), torch.randn(3, 16, 16, dtype=torch.float64)
    places = torch.tensor([[0.0, 1.0], [0.4, 0.7], [1.0, 1.0]], dtype=torch.float64)
    found = model.writer(maps, tokens, model.regions_at(places), 1)
    dropped = 0
    for k, (row, column) in enumerate(places.tolist()):
        expected = maps[k].clone()
        weights = model.writer.mlp(model.writer.norms[1](tokens[k]))
        for token in range(16):
            y = (row * 32 + 4 * (token // 4) + 2) / 48 * 3  # the centre of its 4 x 4 px of 48, in a map from 0 to 3
            x = (column * 32 + 4 * (token % 4) + 2) / 48 * 3
            for place in range(9):
                cell = (math.floor(y + 0.5) + place // 3 - 1, math.floor(x + 0.5) + place % 3 - 1)
                if 0 <= cell[0] < 4 and 0 <= cell[1] < 4:
                    expected[cell[0] * 4 + cell[1]] += weights[token, place] * tokens[k, token]
                else:
                    dropped += 1
        torch.testing.assert_close(found[k], expected)
    assert dropped > 10


def test_tokens_are_told_of_the_map_at_their_places_and_by_the_layer_norms_of_the_fixation(small: Make) -> None:
    model = small().double()
    with torch.no_grad():
        model.reader.mix.weight.zero_()
        model.reader.mix.weight[:, :, 3, 3] = 1  # the map itself
    map = torch.randn(1, 16, 16, dtype=torch.float64)
    regions = model.regions_at(torch.tensor([[0.5, 0.25]], dtype=torch.float64))
    normal = model.reader.norms[1](map)[0].view(4, 4, 16)  # rows, columns, width
    across, down = (0.25 * 32 + 4 * 1 + 2) / 48 * 4 - 0.5, (0.5 * 32 + 4 * 2 + 2) / 48 * 4 - 0.5  # of the token; cells tile the image
    left, top = math.floor(across), math.floor(down)
    read = torch.zeros(16, dtype=torch.float64)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        read += (1 - abs(down - top - i)) * (1 - abs(across - left - j)) * normal[top + i, left + j]
    expected = model.reader.mlp(model.reader.read_norms[1](read))
    torch.testing.assert_close(model.reader(map, regions, 4, 1)[0, 2 * 4 + 1], expected)
    assert (model.reader(map, regions, 4, 0)[0, 9] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("policy", ["random", "centre", "scan", "saliency"])
def test_other_policies_look_where_they_say_and_spare_the_policy_and_the_value_network(policy: str, small: Make, images: Tensor) -> None:
    model = small(policy=policy, exits=(9.0, 9.0))
    trace = rollout(model, images, record=Record(meter=Meter(model)))
    centres = torch.stack([look.decision.regions.centre for look in trace.looks[1:]], 1)  # [B, 2, 2]
    if policy == "centre":
        assert centres.abs().max() < 1e-6
    if policy == "scan":  # two fixations: the upper row of a 2 x 2 raster, at a quarter and three quarters of the range
        expected = torch.tensor([[(2 * part - 1) * 2 / 3, (2 * 0.25 - 1) * 2 / 3] for part in (0.25, 0.75)])
        torch.testing.assert_close(centres, expected.expand(6, 2, 2), atol=1e-6, rtol=0)
    if policy == "random":
        assert len(centres.reshape(-1, 2).unique(dim=0)) == 12
    assert trace.macs is not None
    assert trace.macs.locate.sum() == 0
    assert trace.last_step.tolist() == [3] * 6
    assert model.paper_macs(3).value < small().paper_macs(3).value


def test_drawn_places_scatter_around_the_mean_and_are_scored_after_clamping(small: Make, images: Tensor) -> None:
    model, noise = small(decide="sample", deviation=0.4), Noise.of(3, torch.arange(60))
    decision = rollout(model, images[:1].expand(60, -1, -1, -1), steps=2, noise=noise).looks[1].decision
    assert isinstance(decision, Located)
    clamped = 0
    for k, pair in enumerate(noise.uniform(1, 2).tolist()):
        mean = decision.mean[k].tolist()
        places = [min(max(mean[axis] + 0.4 * NormalDist().inv_cdf(pair[axis]), 0.0), 1.0) for axis in (0, 1)]
        clamped += sum(place in (0.0, 1.0) for place in places)
        expected = sum(math.log(NormalDist(mean[axis], 0.4).pdf(places[axis])) for axis in (0, 1))
        assert decision.log_prob[k].item() == pytest.approx(expected, abs=1e-3)
        centre = [(2 * places[1] - 1) * 2 / 3, (2 * places[0] - 1) * 2 / 3]
        assert decision.regions.centre[k].tolist() == pytest.approx(centre, abs=1e-4)
    assert 0 < clamped < 120
    assert model.stochastic
    assert not small().stochastic


def test_training_passes_no_gradient_from_a_place_into_the_map_or_the_policy(small: Make, images: Tensor) -> None:
    for training in (True, False):
        model = small().train(training)
        trace = rollout(model, images)
        located = trace.looks[1].decision
        assert isinstance(located, Located)
        (of_mean,) = torch.autograd.grad(located.mean.sum(), model.glance.position, retain_graph=True, allow_unused=True)
        assert (of_mean is not None) is not training
        (of_policy,) = torch.autograd.grad(trace.logits.sum(), model.locator.out.weight, allow_unused=True)
        assert (of_policy is not None) is not training


def test_a_run_costs_what_the_papers_formula_says(small: Make, images: Tensor) -> None:
    model = small(exits=(-99.0, -99.0))  # the value network runs, and no image exits
    trace = rollout(model, images, record=Record(every_step=True, meter=Meter(model)))
    assert trace.macs is not None
    for step in (1, 2, 3):
        ran = torch.as_tensor(sum(trace.macs.stopped_at(step).values())).tolist()
        assert ran == [model.paper_macs(step).value] * 6
    assert model.paper_macs(3).convention == "paper"
    assert rollout(small(), images, record=Record(meter=Meter(small()))).macs is not None


def test_deit_s_costs_what_the_paper_prints_within_a_percent() -> None:
    """4.85 G at 3.15 fixations on average, of which the formula is linear; the curve in the paper starts at about 1.1 G."""
    first, second = (paper_macs(AdaptiveNNConfig(), 3, 1000, step) for step in (1, 2))
    assert first == 1_077_411_840
    assert first + 3.15 * (second - first) == pytest.approx(4.85e9, rel=0.01)
    assert (2.86e9 - first) / (second - first) == pytest.approx(1.5, abs=0.05)  # fixations at the smaller budget


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"patch": 44, "token": 4}, "images of 40 x 48 px, got 44"),
        ({"patch": 18}, "multiple of token=4, got 18"),
        ({"width": 15}, "multiple of attention_heads=2, got 15"),
        ({"head_depth": 3}, "below depth=3, got 3"),
        ({"exits": (1.0, 1.0, 1.0)}, "at most 2 steps"),
        ({"policy": "centr"}, "did you mean 'centre'"),
        ({"policy": "coarse-to-fine"}, "cannot follow the policy 'coarse-to-fine'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings: dict[str, Any], part: str, small: Make) -> None:
    with pytest.raises(GlimpseZooError, match=part) as caught:
        small(**settings)
    assert "\n" not in str(caught.value)


def test_two_regions_for_one_image_are_refused(small: Make, images: Tensor) -> None:
    def twice(batch: Tensor, state: State, decision: Decision) -> Decision:
        regions = Regions.one_each(torch.zeros(2, 2), 0.5)
        return Decision.certain(replace(regions, image=torch.tensor([0, 0]), batch=1))

    with pytest.raises(GlimpseZooError, match="one region per image, got 2 for 1 images"):
        rollout(small(), images[:1], choose=twice)


def test_the_defaults_are_the_networks_of_the_paper() -> None:
    with torch.device("meta"):
        model = AdaptiveNN(AdaptiveNNConfig(), Task((288, 288), 3, tuple(map(str, range(1000)))))
    assert model.steps == 5
    assert (len(model.glance.blocks), len(model.focus.blocks), [len(each.blocks) for each in model.classifiers]) == (8, 12, [4] * 5)
    assert model.focus.position.shape == (1, 49, 384)
    assert model.locator.first.weight.shape == (1024, 6272)
    assert model.writer.mlp.fc2.weight.shape == (25, 1536)
