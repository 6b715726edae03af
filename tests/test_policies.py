"""Policies: where each looks, found again by a slow loop over images; what they cost; which models can follow them."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toy_models import Peek, PeekState, batch_of_images, toy

import glimpsezoo as gz
from glimpsezoo.core.macs import Meter
from glimpsezoo.core.policies import cells, contrast_map, quadtree_levels
from glimpsezoo.core.rollout import Record, Trace, rollout
from glimpsezoo.specs import PolicySpec, Provenance
from glimpsezoo.testing.suite import check_model
from glimpsezoo.zoo.plugins import LoadedPlugin, Registry, registry

TASK = gz.Task((24, 20), 1, ("a", "b", "c"))
IMAGES = F.interpolate(torch.rand(6, 1, 6, 5, generator=torch.Generator().manual_seed(1)), size=(24, 20))
IDS = torch.tensor([5, 3, 8, 1, 0, 7])
NOISE = gz.Noise.of(2, IDS)
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])
NAMES = [spec.name for spec in registry().all(PolicySpec)]
MODELS = {
    "mgnet": {"backbone": "cnn4", "glimpses": 6, "downsample": 1},
    "ranzato": {"glimpses": 5, "low_size": 8, "patch": 6, "hidden": 12},
    "pyramid-m1": {"levels": 3},
}
SIZED = ("whole", "coarse-to-fine", "fine-to-coarse")  # only for a model that chooses sizes


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def model_of(name: str, policy: str, **settings) -> gz.GlimpseModel:
    return gz.create_model(name, task=TASK, policy=policy, **{**MODELS[name], **settings})


def run(model: gz.GlimpseModel, images: Tensor = IMAGES, noise: gz.Noise = NOISE, labels: Tensor = LABELS, **how) -> Trace:
    return rollout(model, images, noise=noise, policy=model.follows.told(noise, labels), **how)


def places(trace: Trace) -> tuple[Tensor, Tensor]:
    """Centres [B, T, 2] and scales [B, T] of a trace with one region per image and step."""
    regions = [look.decision.regions for look in trace.looks]
    return torch.stack([each.centre for each in regions], 1), torch.stack([each.scale for each in regions], 1)


def centre_of(name: str, place: tuple[float, float], scale: float, before: tuple[float, float, float]) -> tuple[float, float]:
    """Where a model says that the region at `place` lies. before: x, y and scale of the region before."""
    x, y = place
    if name == "mgnet":  # equation 4 of its paper
        return (2 * x - 1) * (1 - scale), (2 * y - 1) * (1 - scale)
    if name == "ranzato":  # the patch of 6 px lies within 20 x 24 px
        return 2 * (3 + x * 14) / 20 - 1, 2 * (3 + y * 18) / 24 - 1
    column, row = min(2, int(3 * x)), min(2, int(3 * y))
    return before[0] + (column - 1) * before[2] / 2, before[1] + (row - 1) * before[2] / 2


def slow_places(name: str, policy: str, image: int, step: int) -> tuple[float, float]:
    """The place for the step after `step` of one image, for a policy that sees nothing."""
    if policy == "random":
        x, y = NOISE.select(torch.tensor([image])).uniform(step, 2)[0].tolist()
        return x, y
    if policy == "centre":
        return 0.5, 0.5
    looks = {"mgnet": 5, "ranzato": 5, "pyramid-m1": 9}[name]
    side = next(side for side in range(1, 10) if side * side >= looks)
    number = (step - 1) % (side * side)
    return (number % side + 0.5) / side, (number // side + 0.5) / side


@pytest.mark.parametrize("policy", ["random", "centre", "scan"])
@pytest.mark.parametrize("name", MODELS)
def test_a_rule_that_sees_nothing_looks_where_a_loop_finds(name: str, policy: str) -> None:
    if (name, policy) == ("pyramid-m1", "random"):
        return  # draws every cell at one rate: tested with the plugin
    centre, scale = places(run(model_of(name, policy)))
    assert (centre[:, 0] == 0).all()  # the first look is the model's own: the whole image
    for image in range(len(IMAGES)):
        before = (0.0, 0.0, 1.0)
        for step in range(1, centre.shape[1]):
            side = scale[image, step].item()
            x, y = centre_of(name, slow_places(name, policy, image, step), side, before)
            assert centre[image, step].tolist() == pytest.approx([x, y], abs=1e-5)
            before = (x, y, side)


def test_whole_then_random_draws_small_regions_more_often() -> None:
    many = torch.zeros(4000, 1, 24, 20)
    model = model_of("mgnet", "whole-then-random", scale=(0.2, 0.5))
    centre, scale = places(run(model, many, gz.Noise.of(0, torch.arange(4000)), steps=2))
    assert (scale[:, 0] == 1).all()
    drawn = scale[:, 1].numpy()
    assert 0.2 <= drawn.min() < 0.21
    assert 0.49 < drawn.max() <= 0.5
    for s in (0.25, 0.3, 0.4):  # the integral of 1 - s, normalised over [.2, .5]
        expected = ((1 - 0.2) ** 2 - (1 - s) ** 2) / ((1 - 0.2) ** 2 - (1 - 0.5) ** 2)
        assert (drawn <= s).mean() == pytest.approx(expected, abs=0.03)
    within = (centre[:, 1].abs() / (1 - scale[:, 1, None])).numpy()
    assert within.max() <= 1
    assert np.quantile(within, 0.5) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(places(run(model_of("ranzato", "whole-then-random")))[0], places(run(model_of("ranzato", "random")))[0])


@pytest.mark.parametrize(("policy", "levels"), [("coarse-to-fine", (0, 1, 2)), ("fine-to-coarse", (2, 1, 0))])
def test_the_tiles_of_each_level_cover_the_image_once_in_an_order_of_the_images_own(policy: str, levels: tuple[int, ...]) -> None:
    model = model_of("mgnet", policy, glimpses=21)  # 1 + 4 + 16 tiles
    centre, scale = places(run(model))
    begin = 0
    for level in levels:
        side, end = 2**level, begin + 4**level
        tiles = sorted(((2 * k + 1) / side - 1, (2 * j + 1) / side - 1) for j in range(side) for k in range(side))
        assert (scale[:, begin:end] == 1 / side).all()
        for image in range(len(IMAGES)):
            assert np.array(sorted(centre[image, begin:end].tolist())) == pytest.approx(np.array(tiles))
        if level == 2:
            assert len({tuple(map(tuple, order)) for order in centre[:, begin:end].tolist()}) == len(IMAGES)
        begin = end
    assert [len(quadtree_levels(looks)) for looks in (1, 2, 5, 6, 21, 22)] == [1, 2, 2, 3, 3, 4]


def test_the_whole_image_is_looked_at_again_and_again() -> None:
    centre, scale = places(run(model_of("mgnet", "whole")))
    assert not centre.any()
    assert (scale == 1).all()


def slow_contrast(image: np.ndarray) -> np.ndarray:
    """The standard deviation of the grey values around each pixel, as `contrast_map` defines it, by loops."""
    half = max(1, round(min(image.shape) / 16))

    def blur(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                out[i, j] = x[max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1].mean()
        return out

    return np.sqrt(blur((image - blur(image)) ** 2))


def test_the_contrast_map_is_a_local_standard_deviation() -> None:
    colour = torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    for image, found in zip(colour.double(), contrast_map(colour.double()), strict=True):
        assert found[0].numpy() == pytest.approx(slow_contrast(image.mean(0).numpy()), abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_saliency_goes_from_peak_to_peak(name: str) -> None:
    centre, scale = places(run(model_of(name, "saliency")))
    side = 3 if name == "pyramid-m1" else 7
    ratio = 20 / 24 if name == "ranzato" else 1  # its patches are squares of pixels
    for image in range(len(IMAGES)):
        contrast = torch.from_numpy(slow_contrast(IMAGES[image, 0].double().numpy()))[None, None].float()
        before, taken = (0.0, 0.0, 1.0), list[tuple[float, float]]()
        for step in range(1, centre.shape[1]):
            size, best, chosen = scale[image, step].item(), -math.inf, (0.0, 0.0)
            for row in range(side):
                for column in range(side):
                    x, y = centre_of(name, ((column + 0.5) / side, (row + 0.5) / side), size, before)
                    across = [size * (2 * k - 4) / 5 for k in range(5)]
                    grid = torch.tensor([[x + along, y + ratio * down] for down in across for along in across])
                    value = F.grid_sample(contrast, grid[None, None], padding_mode="border", align_corners=False).mean().item()
                    value -= sum(max(abs(x - a), abs(y - b) / ratio) < 0.999 * size for a, b in taken)
                    if value > best + 1e-6:
                        best, chosen = value, (x, y)
            assert centre[image, step].tolist() == pytest.approx(chosen, abs=1e-5)
            if name == "pyramid-m1":
                before = (*chosen, size)
            else:
                taken.append(chosen)


@pytest.mark.parametrize("policy", ["entropy", "oracle"])
@pytest.mark.parametrize("name", MODELS)
def test_a_search_finds_what_whole_runs_find(name: str, policy: str) -> None:
    """Each of the nine looks is run alone; the policy's look is the best of them, and for the oracle of these and the model's own."""
    model, learned = model_of(name, policy), model_of(name, "learned")
    learned.load_state_dict(model.state_dict())

    def outcome(trace: Trace) -> Tensor:
        p = trace.logits.softmax(1)
        return p.gather(1, LABELS[:, None])[:, 0] if policy == "oracle" else (p * p.log()).sum(1)

    outcomes = [outcome(rollout(learned, IMAGES, noise=NOISE, steps=2))] if policy == "oracle" else []
    for place in cells(3, IMAGES):

        def there(images: Tensor, state: gz.State, decision: gz.Decision, at: Tensor = place) -> gz.Decision:
            return learned.look_at(state, at.expand(len(images), 2)) if state.step else decision

        outcomes.append(outcome(rollout(learned, IMAGES, noise=NOISE, steps=2, choose=there)))
    assert len({*torch.stack(outcomes)[:, 0].tolist()}) > 1  # or any choice would do
    assert outcome(run(model, steps=2)) == pytest.approx(torch.stack(outcomes).amax(0), abs=1e-6)


def test_the_oracle_raises_the_right_class_most() -> None:
    reached = {policy: run(model_of("mgnet", policy), steps=2).logits.log_softmax(1) for policy in NAMES}
    right = {policy: found.gather(1, LABELS[:, None]).mean().item() for policy, found in reached.items()}
    assert max(right, key=lambda policy: right[policy]) == "oracle"


def test_the_oracle_wants_labels_and_says_so() -> None:
    with pytest.raises(gz.GlimpseZooError, match="the policy 'oracle' expects the labels of the images"):
        rollout(model_of("mgnet", "oracle"), IMAGES, noise=NOISE)


@pytest.mark.parametrize("policy", NAMES)
@pytest.mark.parametrize("name", MODELS)
def test_a_policy_costs_what_it_computes(name: str, policy: str) -> None:
    if policy in SIZED and name != "mgnet":
        return
    model = model_of(name, policy)
    macs = run(model, record=Record(meter=Meter(model)), steps=3).macs
    assert macs is not None
    looked = macs.sense[:, 1] + macs.fuse[:, 1]
    if policy == "learned":
        assert (macs.locate[:, 0] > 0).all()
    elif policy in ("entropy", "oracle"):
        assert (macs.locate[:, 0] >= 9 * looked.min()).all()  # nine looks, each with a classification; the model's own may be larger
    else:
        assert not macs.locate.any()


@pytest.mark.parametrize("name", ["ranzato", "pyramid-m1"])
@pytest.mark.parametrize("policy", SIZED)
def test_a_model_that_cannot_follow_a_policy_says_why(name: str, policy: str) -> None:
    with pytest.raises(
        gz.GlimpseZooError, match=f"cannot follow the policy '{policy}', because it does not choose the size of its regions"
    ):
        model_of(name, policy)
    with pytest.raises(
        gz.GlimpseZooError, match="Peek cannot follow the policy 'centre', because it looks only where its own locator says"
    ):
        toy(Peek).follow(gz.find_policy("centre"))


def test_a_name_that_nobody_registered_gets_the_nearest() -> None:
    with pytest.raises(gz.GlimpseZooError, match=r"--set policy=sailency for mgnet: expected the name of a policy.*'saliency'"):
        model_of("mgnet", "sailency")


def test_a_policy_with_another_name_than_its_spec_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results would record a name that nobody can ask for."""
    odd = Provenance("odd", "glimpsezoo-odd", "1")
    spec = PolicySpec(name="corner", description="", policy="glimpsezoo.core.policies:Scan", provenance=odd)
    monkeypatch.setattr("glimpsezoo.zoo.policies.registry", lambda: Registry([LoadedPlugin(odd, (spec,))]))
    with pytest.raises(gz.GlimpseZooError, match=r"the name 'corner', which glimpsezoo-odd 1 registers it by, got 'scan'"):
        gz.find_policy("corner")


class Blind(Peek):
    """Sees nothing before its first look."""

    sees = "none"

    def look_at(self, state: PeekState, place: Tensor, scale: Tensor | None = None, made: gz.Made = "given") -> gz.Decision:
        return gz.Decision.certain(gz.Regions.one_each((2 * place - 1).to(state.memory), 0.5), made)


def test_a_model_that_sees_nothing_at_first_begins_where_the_policy_says() -> None:
    small = batch_of_images(4)
    noise = gz.Noise.of(0, torch.arange(4))
    for name in ("centre", "scan", "random"):
        model = toy(Blind)
        model.follow(gz.find_policy(name))
        first = rollout(model, small, noise=noise).looks[0].decision.regions.centre
        side = math.ceil(math.sqrt(model.steps))
        expected = {"centre": torch.zeros(1, 2), "scan": torch.full((1, 2), 1 / side - 1), "random": 2 * noise.uniform(0, 2) - 1}
        assert first == pytest.approx(expected[name].expand(4, 2))
    blind = toy(Blind)
    with pytest.raises(gz.GlimpseZooError, match="because it cannot look at the whole image"):
        blind.follow(gz.find_policy("whole-then-random"))


class Led(Blind):
    """Has no locator of its own."""

    locate = gz.GlimpseModel.locate


def test_a_model_without_a_locator_follows_any_policy_but_its_own() -> None:
    led, small = toy(Led), batch_of_images(4)
    with pytest.raises(gz.GlimpseZooError, match="Led cannot follow the policy 'learned', because it has no locator of its own"):
        led.follow(gz.find_policy("learned"))
    led.follow(gz.find_policy("oracle"))
    noise, labels = gz.Noise.of(0, torch.arange(4)), torch.zeros(4).long()
    trace = rollout(led, small, noise=noise, policy=led.follows.told(noise, labels))
    assert len(trace.looks) == led.steps > 1
    assert {look.decision.made for look in trace.looks} == {"searched"}


def test_a_twin_shares_the_weights_and_goes_back_to_the_models_own_choice() -> None:
    model = model_of("pyramid-m1", "centre")
    twin = model.following(gz.find_policy("learned"))
    assert (model.policy, model.stochastic, model.surrogate, model.config.policy) == ("centre", False, None, "centre")
    assert (twin.policy, twin.stochastic, twin.config.policy) == ("learned", True, "learned")
    assert twin.surrogate == model_of("pyramid-m1", "learned").surrogate is not None
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    own = model_of("pyramid-m1", "learned")
    own.load_state_dict(model.state_dict())
    assert torch.equal(run(twin).logits, run(own).logits)


@pytest.mark.parametrize("policy", [name for name in NAMES if name not in ("learned", "random", "centre", "scan", "oracle")])
def test_models_that_follow_a_policy_keep_every_rule(policy: str) -> None:
    findings = check_model(model_of("mgnet", policy, glimpses=3))
    assert [finding for finding in findings if not finding.passed] == []


def test_an_image_keeps_its_label_when_others_leave() -> None:
    model = model_of("mgnet", "oracle")
    every = run(model)
    rows = torch.tensor([4, 1, 1])
    some = run(model, IMAGES[rows], replace(NOISE, keys=NOISE.keys[rows]), LABELS[rows])
    assert some.logits == pytest.approx(every.logits[rows], abs=1e-5)
