"""A trace tells the truth: what was seen, where, and what was said of it, each held against another computation of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Tensor, nn
from toy_models import Peek, batch_of_images, crops, toy

import glimpsezoo as gz
from glimpsezoo.conditions.attacks.catalogue import ATTACKS
from glimpsezoo.core.macs import Meter
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.regions import Regions
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.data.loading import open_data
from glimpsezoo.reports.pictures.seen import covers, glimpses_seen
from glimpsezoo.reports.pictures.traced import Subject, Traced, Viewing, trace_image
from glimpsezoo.specs import Task, load_string
from glimpsezoo.zoo.names import data_spec

TASK = Task((56, 56), 1, ("a", "b", "c"), mean=(0.3,), std=(0.2,))


def picture(side: int = 56) -> Tensor:
    """An image of 8-bit pixels, none like the other."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side))
    return torch.from_numpy(pixels / 255).float()


def as_bytes(image: Tensor) -> ndarray:
    return (image[0] * 255).round().to(torch.uint8).numpy()  # [H, W]


def means(pixels: ndarray, block: int) -> ndarray:
    """Means of square blocks of pixels."""
    height, width = pixels.shape
    return pixels.reshape(height // block, block, width // block, block).mean((1, 3))


def traced(model: Any, image: Tensor, **changes: Any) -> Traced:
    return trace_image(Viewing(model.eval(), "m", **changes), Subject("one", image, 1, 7))


def test_a_pyramid_s_glimpses_are_the_pixels_of_its_levels():
    """At base 14, a node of level k is cut from the image averaged over blocks of 4, 2 and 1 px."""
    image = picture()
    found = traced(gz.create_model("pyramid-m3", task=TASK, policy="random", cells=4.0), image)
    pixels, levels = as_bytes(image).astype(float), set()
    for step, block in zip(found.looks, (4, 2, 1), strict=True):
        level = means(pixels, block)
        for glimpse in step.glimpses:
            top, left = (round(share * level.shape[0]) for share in (glimpse.top, glimpse.left))
            (view,) = glimpse.views
            assert view.shape == (14, 14, 3)
            np.testing.assert_allclose(view[..., 0], level[top : top + 14, left : left + 14], atol=0.51)  # rounded to bytes
            levels.add(step.step)
    assert levels == {1, 2, 3}


def test_glimpses_of_two_scales_are_shown_as_both():
    """The finer one is the image's own pixels, the wider one their means over 2 x 2."""
    image = picture()
    model = gz.create_model("ranzato", task=TASK, glimpses=1, patch=12, scales=2, low_size=14)
    found = traced(model, image)
    (glimpse,) = found.looks[1].glimpses
    side = round(glimpse.width * 56)
    top, left = (int(np.floor(share * 56 + 0.5)) for share in (glimpse.top, glimpse.left))
    pixels = np.pad(as_bytes(image).astype(float), 30)
    wide = pixels[30 + top : 30 + top + side, 30 + left : 30 + left + side]
    assert side == 24
    assert len(glimpse.views) == 2
    np.testing.assert_allclose(glimpse.views[1][..., 0], means(wide, 2), atol=0.51)
    np.testing.assert_array_equal(glimpse.views[0][..., 0], wide[6:18, 6:18])


def test_a_square_of_pixels_is_framed_as_one_in_an_image_that_is_none():
    model = gz.create_model("ranzato", task=replace(TASK, image_size=(56, 80)), glimpses=1, patch=12, scales=2, low_size=14)
    (glimpse,) = traced(model, torch.rand(1, 56, 80)).looks[1].glimpses
    assert (glimpse.height * 56, glimpse.width * 80) == pytest.approx((24, 24))


def test_a_sampled_glimpse_is_shown_as_it_was_sampled():
    """MGNet's points lie on a grid whose corners are the centres of the outermost pixels: computed here for the first look."""
    blocks = picture(8).repeat_interleave(7, 1).repeat_interleave(7, 2)  # means over 4 x 4 px would be others
    model = gz.create_model("mgnet", task=TASK, backbone="cnn4", glimpses=2, downsample=4.0)
    first, second = (look.glimpses[0].views[0] for look in traced(model, blocks).looks)
    place = np.linspace(0, 55, 14)
    low, share = np.floor(place).astype(int), place % 1
    high = np.minimum(low + 1, 55)
    pixels = as_bytes(blocks).astype(float)
    rows = pixels[low] * (1 - share)[:, None] + pixels[high] * share[:, None]
    np.testing.assert_allclose(first[..., 0], rows[:, low] * (1 - share) + rows[:, high] * share, atol=0.51)
    assert second.shape == (14, 14, 3)


class Inverted(Peek):
    """What enters its network is no picture of its region."""

    def sense(self, images: Tensor, state: Any, regions: Regions) -> Tensor:
        return self.see(7 - 9 * crops(images, regions, 8)).flatten(1)


class Blind(Peek):
    """Feeds pixels to no module."""

    def __init__(self) -> None:
        super().__init__(2)
        self.weight = nn.Parameter(torch.ones(1, 216))

    def sense(self, images: Tensor, state: Any, regions: Regions) -> Tensor:
        return images[regions.image].mean((1, 2, 3))[:, None] * self.weight


@pytest.mark.parametrize(("kind", "side"), [(Inverted, 8), (Blind, 16)])
def test_what_cannot_be_seen_is_shown_as_what_its_region_covers(kind: type, side: int):
    image = batch_of_images(1)[0]
    first = traced(toy(kind), image).looks[0].glimpses[0].views[0]
    np.testing.assert_allclose(first[..., 0] / 255, means(image[0].double().numpy(), 16 // side), atol=0.003)


def test_the_whole_image_is_no_glimpse_of_a_model_that_cuts_its_patches_itself():
    model = gz.create_model("ram", task=TASK, patch=8, scales=2, glimpses=6)
    image = torch.zeros(1, 56, 56)
    image[:, 20:36, 20:36] = picture(16)  # on black, most of the image is like any region
    margin = np.full((56 + 2 * 16, 56 + 2 * 16), round(0.3 * 255))  # outside lies the mean pixel
    margin[16:-16, 16:-16] = as_bytes(image)
    windows = np.lib.stride_tricks.sliding_window_view(margin, (8, 8)).reshape(-1, 64)
    for look in traced(model, image).looks:
        fine, coarse = look.glimpses[0].views
        assert fine.shape == coarse.shape == (8, 8, 3)
        assert (np.abs(windows - fine[..., 0].reshape(1, 64).astype(int)) <= 1).all(1).any()


def test_a_region_covers_the_means_of_its_pixels_and_black_outside():
    image = picture(32)[None]
    regions = Regions.one_each(torch.tensor([[-0.5, 0.0]]), 0.5)
    pixels = image[0, 0].numpy()
    np.testing.assert_allclose(covers(image, regions, (4, 4))[0, 0].numpy(), means(pixels[8:24, :16], 4), atol=1e-5)
    outside = Regions.one_each(torch.tensor([[-1.0, 0.0]]), 0.5)
    found = covers(image, outside, (4, 4))[0, 0].numpy()
    np.testing.assert_allclose(found[:, 2:], means(pixels[8:24, :8], 4), atol=1e-5)
    assert not found[:, :2].any()


def test_asking_again_what_was_seen_changes_nothing_of_the_model():
    model, image = toy(Peek), batch_of_images(1)
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    state, decision = model.start(image, Noise.of(0, torch.tensor([0])))
    (views,) = glimpses_seen(model, image, state, decision.regions)
    np.testing.assert_allclose(views[0][..., 0] / 255, crops(image, decision.regions, 8)[0, 0], atol=0.002)
    assert [len(module._forward_pre_hooks) for module in model.modules()] == hooks


def test_children_of_a_tree_lie_in_their_parents():
    model = gz.create_model("pyramid-m3", task=TASK, policy="random", cells=4.0)
    glimpses = {glimpse.number: glimpse for look in traced(model, picture()).looks for glimpse in look.glimpses}
    assert list(glimpses) == list(range(1, len(glimpses) + 1))
    assert len(glimpses) > 5
    for glimpse in glimpses.values():
        if glimpse.number > 1:
            parent = glimpses[glimpse.parent]
            assert (glimpse.width, glimpse.height) == pytest.approx((parent.width / 2, parent.height / 2))
            for low, outer in ((glimpse.left, parent.left), (glimpse.top, parent.top)):
                assert outer - 1e-6 <= low <= outer + parent.width - glimpse.width + 1e-6
    assert glimpses[1].parent == 0


@pytest.mark.parametrize("card", ["mgnet.digits", "pyramid-m3.digits"])
def test_a_trace_says_what_a_measured_run_of_the_image_says(card: str):
    """Predictions, confidence, exits and MACs of a batch, from rows of an evaluation."""
    model, rule = gz.load(card), gz.Confidence(0.9995)
    data = open_data(data_spec("digits"), "digits", "test", {})
    places = [3, 7, 400, 900, 1800, 2500]
    examples = [data[place] for place in places]
    rows = _rows(model, examples, rule)
    exits = set()
    for k, example in enumerate(examples):
        found = trace_image(Viewing(model, card, exit_rule=rule), Subject("one", example.image, example.label, example.id))
        last = int(rows["last"][k])
        assert [look.step for look in found.looks] == list(range(1, last + 1))
        assert [int(look.prediction) for look in found.looks] == rows["prediction"][k][:last].tolist()
        assert [look.confidence for look in found.looks] == pytest.approx(rows["confidence"][k][:last].tolist(), abs=1e-5)
        assert [look.right for look in found.looks] == [int(look.prediction) == example.label for look in found.looks]
        assert found.macs == int(rows["macs"][k])
        assert ("confidence 1" in found.exit) == (last < found.steps)
        exits.add(last)
    assert len(exits) > 1  # or exits were not tested


def _rows(model: Any, examples: Any, rule: Any) -> dict[str, Tensor]:
    images = torch.stack([example.image for example in examples])
    noise = Noise.of(0, torch.tensor([example.id for example in examples]))
    with torch.no_grad():
        run = rollout(model, images, noise=noise, exit_rule=rule, record=Record(every_step=True, meter=Meter(model)))
    assert run.macs is not None
    best, prediction = run.logits_by_step().softmax(-1).max(-1)
    macs = torch.stack(list(run.macs.stopped_at(run.steps, classify_every_step=True).values())).sum(0)
    return {"prediction": prediction, "confidence": best, "last": run.last_step, "macs": macs}


def test_an_image_without_a_label_is_attacked_at_what_was_said_of_it():
    model, image = gz.load("cnn4.digits"), picture(64)
    spec = next(spec for spec in ATTACKS if spec.name == "pgd")
    attack = load_string(spec.attack)(load_string(spec.config).parse({"eps": "0.3", "steps": 5}, owner="pgd"))
    clean = trace_image(Viewing(model, "m"), Subject("one", image, None, 7))
    found = trace_image(Viewing(model, "m", attack, "pgd"), Subject("one", image, None, 7))
    said = model.task.classes.index(clean.looks[-1].prediction)
    known = trace_image(Viewing(model, "m", attack, "pgd"), Subject("one", image, said, 7))
    np.testing.assert_array_equal(found.pixels, known.pixels)
    assert found.note
    assert not known.note
    assert found.looks[-1].right is None
    change = np.abs(found.pixels.astype(int) - clean.pixels.astype(int))
    assert 0 < change.max() <= round(0.3 * 255) + 1
