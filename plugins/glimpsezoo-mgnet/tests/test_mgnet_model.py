"""MGNet against its equations, computed here a second time, and its promises as a glimpse model."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_mgnet.config import MGNetConfig
from glimpsezoo_mgnet.model import MGNet, rescale_gradient
from torch import Tensor

from glimpsezoo import Confidence, Decision, GlimpseZooError, Noise, Record, Regions, Task, Trace, resample, rollout
from glimpsezoo.testing import excess, tolerance

DIGITS = Task((64, 64), 1, tuple("0123456789"), mean=(0.1,), std=(0.2,))
EVERY = Record(every_step=True, states=True)


def model_of(seed: int = 0, **settings: Any) -> MGNet:
    torch.manual_seed(seed)
    settings = {"backbone": "cnn4", "downsample": 4, "glimpses": 3, "biases": True, **settings}
    model = MGNet(MGNetConfig.parse(settings, owner="mgnet"), DIGITS).eval()
    with torch.no_grad():
        for parameter in (model.norm.weight, model.norm.bias):
            parameter.uniform_(-1, 1)
        model.locator.weight.mul_(8)  # glimpses far apart, so that steps and images differ
    return model


def images_of(count: int = 4, seed: int = 3) -> Tensor:
    return torch.rand(count, 1, 64, 64, generator=torch.Generator().manual_seed(seed))


def places(trace: Trace) -> Tensor:
    """(s, x, y) of every step, [B, T, 3]."""
    return torch.stack([torch.cat([look.decision.regions.scale[:, None], look.decision.regions.centre], 1) for look in trace.looks], 1)


def test_glimpses_are_bilinear_samples_of_their_region_with_aligned_corners() -> None:
    """Equations 1 and 2, point by point in plain numbers."""
    image = images_of(1)
    s, x, y = 0.37, -0.42, 0.31
    regions = Regions.one_each(torch.tensor([[x, y]]), s)
    glimpse = resample(image, regions, (5, 5), align_corners=True)[0, 0]
    pixels = image[0, 0].double().numpy()
    for i, j in np.ndindex(5, 5):
        u, v = (s * (-1 + 2 * j / 4) + x + 1) / 2 * 63, (s * (-1 + 2 * i / 4) + y + 1) / 2 * 63  # pixel coordinates
        left, top = math.floor(u), math.floor(v)
        du, dv = u - left, v - top
        above = (1 - du) * pixels[top, left] + du * pixels[top, left + 1]
        below = (1 - du) * pixels[top + 1, left] + du * pixels[top + 1, left + 1]
        assert glimpse[i, j].item() == pytest.approx((1 - dv) * above + dv * below, abs=1e-5)


def test_the_cached_fusion_is_equation_3_over_all_features() -> None:
    model, images = model_of(), images_of()
    trace = rollout(model, images, record=EVERY)
    code = places(trace)
    h = torch.stack([torch.cat([look.state.feature, code[:, t]], 1) for t, look in enumerate(trace.looks)], 1)  # type: ignore[union-attr]
    for t, look in enumerate(trace.looks, 1):
        H = h[:, :t].detach().double().numpy()  # [B, t, d]
        linear = [
            (m.weight.detach().double().numpy().T, m.bias.detach().double().numpy())
            for m in (model.query, model.key, model.value, model.out)
        ]
        Q, K, V = (H @ W + b for W, b in linear[:3])
        scores = np.einsum("bid,bjd->bij", Q, K) / math.sqrt(H.shape[2])
        weights = np.exp(scores) / np.exp(scores).sum(2, keepdims=True)
        E = np.einsum("bij,bjd->bid", weights, V) @ linear[3][0] + linear[3][1]
        centred = E - E.mean(2, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(2, keepdims=True) + model.norm.eps)
        normed = normed * model.norm.weight.detach().numpy() + model.norm.bias.detach().numpy()
        expected = np.maximum(normed[:, t - 1], 0)
        np.testing.assert_allclose(look.state.fused.detach().numpy(), expected, atol=1e-4)  # type: ignore[union-attr]
        assert expected.max() > 0.1
        logits = expected @ model.global_classifier.weight.detach().numpy().T + model.global_classifier.bias.detach().numpy()
        np.testing.assert_allclose(look.logits.detach().numpy(), logits, atol=1e-4)  # type: ignore[union-attr]


def test_the_first_look_is_the_whole_image_and_the_next_ones_follow_equation_4() -> None:
    model = model_of(scale=(0.25, 0.6))
    trace = rollout(model, images_of(), record=EVERY)
    code = places(trace)
    assert code[:, 0].tolist() == [[1.0, 0.0, 0.0]] * 4
    for t in (1, 2):
        fused = trace.looks[t - 1].state.fused  # type: ignore[union-attr]
        raw = 1 / (1 + torch.exp(-(fused @ model.locator.weight.T + model.locator.bias)))
        s = raw[:, 0] * 0.35 + 0.25
        expected = torch.stack([s, (2 * raw[:, 1] - 1) * (1 - s), (2 * raw[:, 2] - 1) * (1 - s)], 1)
        torch.testing.assert_close(code[:, t], expected)
    assert code[:, 1].std(0).min() > 1e-3  # images have different places


def test_places_are_not_rounded_under_mixed_precision() -> None:
    model, images = model_of(), images_of(64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        state = rollout(model, images, record=EVERY).looks[0].state
        regions = model.locate(state).regions
        assert regions.centre.dtype == regions.scale.dtype == torch.float32
        assert len(regions.centre[:, 0].unique()) == 64
    raw = (state.fused.double() @ model.locator.weight.double().T + model.locator.bias.double()).sigmoid()
    low, high = model.config.scale
    torch.testing.assert_close(regions.scale, (raw[:, 0] * (high - low) + low).float())


@pytest.mark.parametrize("extreme", [-50.0, 50.0])
def test_no_region_reaches_outside_the_image(extreme: float) -> None:
    model = model_of()
    with torch.no_grad():
        model.locator.bias[1:] = extreme
    code = places(rollout(model, images_of()))[:, 1:]
    assert (code[..., 1:].abs() + code[..., :1] <= 1 + 1e-6).all()
    assert code[..., 1].abs().min() > 0.4
    assert ((code[..., 0] >= 0.2) & (code[..., 0] <= 0.5)).all()


def test_biases_are_an_option() -> None:
    without = {name for name, _ in model_of(biases=False).named_parameters() if name.endswith("bias")}
    assert without == {f"backbone.conv{i}.bias" for i in (1, 2, 3, 4)} | {"norm.bias"}


def test_the_first_steps_of_many_are_the_steps_of_few() -> None:
    model, images = model_of(glimpses=5), images_of()
    long, short = rollout(model, images, record=EVERY), rollout(model, images, steps=2, record=EVERY)
    assert torch.equal(long.logits_by_step()[:, :2], short.logits_by_step())  # the same operations in the same batch
    assert torch.equal(places(long)[:, :2], places(short))


@pytest.mark.parametrize("policy", ["learned", "random", "scan"])
def test_a_batch_gives_what_its_images_give_alone_and_in_another_order(policy: str) -> None:
    model, images, ids = model_of(policy=policy), images_of(5), torch.tensor([7, 3, 11, 2, 90])
    allowed = tolerance(model, images, Noise.of(1, ids)).logits
    whole = rollout(model, images, noise=Noise.of(1, ids), record=EVERY).logits_by_step()
    for i in range(5):
        alone = rollout(model, images[i : i + 1], noise=Noise.of(1, ids[i : i + 1]), record=EVERY).logits_by_step()
        assert excess(alone[0], whole[i], allowed[i]) <= 1
    turned = rollout(model, images.flip(0), noise=Noise.of(1, ids.flip(0)), record=EVERY).logits_by_step()
    assert excess(turned.flip(0), whole, allowed) <= 1


@pytest.mark.parametrize("policy", ["learned", "random"])
def test_images_that_exit_and_leave_change_nothing_for_the_others(policy: str) -> None:
    model, images = model_of(policy=policy, glimpses=4), images_of(12)
    confidence = rollout(model, images, record=EVERY).logits_by_step().softmax(2).amax(2)  # [B, T]
    rule = Confidence(threshold=confidence[:, :2].quantile(0.5).item())  # between two images, not at one
    compact, whole = rollout(model, images, exit_rule=rule), rollout(model, images, exit_rule=rule, compact=False)
    assert len(compact.last_step.unique()) > 1  # some leave early, some do not
    assert torch.equal(compact.last_step, whole.last_step)
    allowed = tolerance(model, images).logits[torch.arange(12), whole.last_step - 1]
    assert excess(compact.logits, whole.logits, allowed) <= 1


def locator_gradient(model: MGNet, images: Tensor, labels: Tensor) -> Tensor:
    model.zero_grad()
    F.cross_entropy(rollout(model, images).logits, labels).backward()
    assert model.locator.weight.grad is not None
    return model.locator.weight.grad.clone()


def test_equation_5_scales_the_locators_gradient_in_training_mode_only() -> None:
    model, images, labels = model_of(glimpses=2, gradient_scale=0.125), images_of(), torch.tensor([1, 2, 3, 4])

    # Evaluation has the true gradient: compare one weight of each of s, x and y with a finite difference in double precision.
    model, images = model.double().eval(), images.double()
    true = locator_gradient(model, images, labels)
    assert true.abs().max() > 1e-6
    column = int(true.abs().sum(0).argmax())
    for row in (0, 1, 2):
        losses = []
        for step in (1e-7, -1e-7):
            with torch.no_grad():
                model.locator.weight[row, column] += step
                losses.append(F.cross_entropy(rollout(model, images).logits, labels).item())
                model.locator.weight[row, column] -= step
        assert (losses[0] - losses[1]) / 2e-7 == pytest.approx(true[row, column].item(), rel=1e-3)

    # In training it is scaled. The positional code, where the gradient stops only in training, is detached here.
    with torch.no_grad():
        for projection in (model.query, model.key, model.value):
            projection.weight[:, -3:] = 0
    true = locator_gradient(model, images, labels)
    torch.testing.assert_close(locator_gradient(model.train(), images, labels), 0.125 * true)
    model.eval().training_gradients = True  # set explicitly
    torch.testing.assert_close(locator_gradient(model, images, labels), 0.125 * true)


def test_gradient_rescaling_changes_no_value() -> None:
    x = torch.rand(7, 3, requires_grad=True)
    y = rescale_gradient(x, 0.02)
    assert torch.equal(x, y)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, 0.02 * 2 * x.detach())


@pytest.mark.parametrize("how", ["training", "asked for", "evaluation"])
def test_gradients_stop_at_the_positional_code_in_training_only(how: str) -> None:
    model, images = model_of().train(how == "training"), images_of(2)
    model.training_gradients = how == "asked for"
    state, _ = model.start(images, Noise.of(0, torch.arange(2)))
    centre, scale = torch.rand(2, 2, requires_grad=True), torch.rand(2, requires_grad=True)
    features = torch.rand(2, 128, requires_grad=True)
    decision = Decision.certain(Regions.one_each(centre, scale))
    fused = model.fuse(state, decision, features).fused
    to_features, to_centre, to_scale = torch.autograd.grad(fused.sum(), [features, centre, scale], allow_unused=True)
    assert to_features.abs().sum() > 0
    assert (to_centre is None) == (to_scale is None) == (how != "evaluation")
    moved = Decision.certain(Regions.one_each(centre + 0.5, scale))  # the code itself is used
    assert not torch.allclose(model.fuse(state, moved, features).fused, fused)


def test_trivial_policies_place_regions_of_the_middle_size_without_the_image() -> None:
    images, other = images_of(3, seed=1), images_of(3, seed=2)
    for policy in ("random", "centre", "scan"):
        model = model_of(policy=policy, glimpses=5)
        code = places(rollout(model, images))
        torch.testing.assert_close(code, places(rollout(model, other)))
        torch.testing.assert_close(code[:, 1:, 0], torch.full((3, 4), 0.35))
        assert model.policy == policy
        assert model.stochastic == (policy == "random")
        if policy == "centre":
            assert code[:, 1:, 1:].abs().max() == 0
        if policy == "scan":  # four glimpses: the centres of a 2 x 2 raster, at a quarter and three quarters of the range
            torch.testing.assert_close(code[0, 1:, 1:], torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]) * 0.5 * 0.65)
        if policy == "random":
            assert len(code[:, 1:, 1:].reshape(-1, 2).unique(dim=0)) == 12
            assert (code[..., 1:].abs() <= 0.65).all()


def test_only_the_glimpse_classifier_is_idle_when_measuring() -> None:
    model, images = model_of(), images_of()
    before = rollout(model, images).logits
    with torch.no_grad():
        model.glimpse_classifier.weight.fill_(torch.nan)  # type: ignore[union-attr]
    assert torch.equal(rollout(model, images).logits, before)
    assert model_of(alpha=0).glimpse_classifier is None


def test_what_a_model_declares() -> None:
    assert (model_of().sees, model_of(downsample=1).sees, model_of(glimpses=7).steps) == ("lowres", "full image", 7)


def test_two_regions_for_one_image_are_refused() -> None:
    model, images = model_of(), images_of(1)

    def twice(images: Tensor, state: Any, decision: Decision) -> Decision:
        regions = Regions.one_each(torch.zeros(2, 2), 0.5)
        return Decision.certain(replace(regions, image=torch.tensor([0, 0]), batch=1))

    with pytest.raises(GlimpseZooError, match="one region per image, got 2 for 1 images"):
        rollout(model, images, choose=twice)
