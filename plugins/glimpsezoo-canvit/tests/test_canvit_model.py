"""CanViT beside the authors' package: the same glimpses, states and logits at every look, under every policy; its costs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import glimpsezoo as gz
from glimpsezoo.core.macs import Meter
from glimpsezoo.core.protocol import Computing
from glimpsezoo.core.rollout import Trace
from glimpsezoo.specs import PolicySpec
from glimpsezoo.zoo.plugins import registry

pytest.importorskip("canvit_pytorch")

from canvit_pytorch import CanViTForImageClassification, Viewpoint, sample_at_viewpoint
from canvit_pytorch.episode import run_episode
from canvit_pytorch.flops import glimpse_flops
from canvit_pytorch.policies import FixedSequence, random_viewpoints
from canvit_pytorch.policies.quadtree import quadtree_level
from canvit_pytorch.preprocess import imagenet_normalize
from canvit_pytorch.viewpoint import crop_box_px
from glimpsezoo_canvit.model import CanViT, architecture

POLICIES = [spec.name for spec in registry().all(PolicySpec) if spec.name != "learned"]
LABELS = torch.tensor([0, 1, 2, 1, 0])
Make = Callable[..., CanViT]


def run(model: CanViT, images: Tensor, **how: Any) -> Trace:
    noise = gz.Noise.of(0, torch.arange(len(images)))
    policy = model.follows.told(noise, LABELS.repeat(len(images))[: len(images)])
    with torch.no_grad():
        return gz.rollout(model, images, noise=noise, policy=policy, record=gz.Record(every_step=True, states=True), **how)


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def viewpoints(trace: Trace) -> list[Viewpoint]:
    """What the trace looked at, as the authors say it: rows first."""
    regions = [look.decision.regions for look in trace.looks]
    return [Viewpoint(centers=torch.stack([each.centre[:, 1], each.centre[:, 0]], 1), scales=each.scale + 0) for each in regions]


def theirs(model: CanViT) -> CanViTForImageClassification:
    """The authors' classifier with the same weights, by the same names."""
    twin = CanViTForImageClassification(canvit_config=architecture(model.config), n_classes=len(model.task.classes)).eval()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("policy", POLICIES)
def test_every_look_gives_what_the_authors_loop_gives(tiny: Make, images: Tensor, policy: str) -> None:
    model = tiny(policy=policy)
    trace, twin = run(model, images), theirs(model)
    with torch.no_grad():
        steps = run_episode(
            canvit=twin.canvit,
            images=imagenet_normalize(images),
            policy=FixedSequence(viewpoints(trace)),
            num_glimpses=6,
            glimpse_size_px=32,
            initial_state=twin.init_state(batch_size=5, canvas_grid_size=4),
        )
        for look, step in zip(trace.looks, steps, strict=True):
            close(look.logits, twin.classify(step.state.recurrent_cls))
            close(look.state.canvas, step.state.canvas)
    by_step = trace.logits_by_step()
    assert (by_step.diff(dim=1).abs().amax((0, 2)) > 1e-2).all()  # or the looks would not be compared
    assert (by_step.std(0).amax(1) > 1e-2).all()


@pytest.mark.parametrize(
    "change", [{"viewpoint": False}, {"reads": False}, {"projections": "qkvo"}, {"stride": 1}, {"registers": 0}], ids=str
)
def test_every_setting_of_the_network_reaches_it(tiny: Make, images: Tensor, change: dict[str, Any]) -> None:
    model = tiny(glimpses=2, **change)
    trace, twin = run(model, images), theirs(model)
    with torch.no_grad():
        steps = run_episode(
            canvit=twin.canvit, images=imagenet_normalize(images), policy=FixedSequence(viewpoints(trace)), num_glimpses=2,
            glimpse_size_px=32, initial_state=twin.init_state(batch_size=5, canvas_grid_size=4),
        )  # fmt: skip
        close(trace.logits, twin.classify(steps[-1].state.recurrent_cls))
    assert model.canvit.config != tiny().canvit.config


@pytest.mark.parametrize(("policy", "levels"), [("coarse-to-fine", (0, 1, 2)), ("fine-to-coarse", (2, 1, 0))])
def test_the_quadtree_has_the_authors_tiles(tiny: Make, images: Tensor, policy: str, levels: tuple[int, ...]) -> None:
    seen = viewpoints(run(tiny(policy=policy, glimpses=21), images))
    for level in levels:
        tiles, seen = seen[: 4**level], seen[4**level :]
        for image in range(len(images)):
            found = sorted((*each.centers[image].tolist(), each.scales[image].item()) for each in tiles)
            assert found == [pytest.approx(tuple(tile)) for tile in sorted(quadtree_level(level))]


def test_random_looks_are_drawn_like_the_authors(tiny: Make) -> None:
    count = 4000
    torch.manual_seed(0)
    expected = random_viewpoints(batch_size=count, device=torch.device("cpu"))
    many = torch.rand(count, 3, 16, 16)
    model = tiny(policy="random", backbone="tiny", glimpse=16, canvas=1)
    state, _ = model.start(many, gz.Noise.of(0, torch.arange(count)))
    for policy, step in (("random", 0), ("whole-then-random", 1)):
        state = type(state)(**{**vars(state), "step": step})
        regions = gz.find_policy(policy).decide(model, many, state, None).regions
        for part in (lambda scale, at: scale, lambda scale, at: at[:, 0], lambda scale, at: at[:, 1] / (1 - scale)):
            ours, goal = part(regions.scale, regions.centre), part(expected.scales, expected.centers.flip(1))
            for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
                assert ours.quantile(share).item() == pytest.approx(goal.quantile(share).item(), abs=0.05)


def test_the_whole_scene_again_and_again_is_further_thought(tiny: Make, images: Tensor) -> None:
    trace = run(tiny(policy="whole"), images)
    assert all((each.scales == 1).all() and not each.centers.any() for each in viewpoints(trace))
    assert trace.logits_by_step().diff(dim=1).abs().min() > 0


def test_a_region_is_a_viewpoint_with_x_and_y_exchanged(tiny: Make) -> None:
    model, grey = tiny(), torch.zeros(1, 3, 48, 64)
    state, _ = model.start(grey, gz.Noise.of(0, torch.arange(1)))
    regions = model.look_at(state, torch.tensor([[1.0, 0.0]]), torch.tensor([0.25])).regions  # the upper right corner
    ((top, left, bottom, right),) = crop_box_px(
        viewpoints(run(model, grey, choose=lambda *_: gz.Decision.certain(regions)))[0], image_size_px=64
    )
    assert (top, left, bottom, right) == (0, 48, 16, 64)
    bright = grey.clone()
    bright[:, :, :12, 48:] = 1  # exactly what the region covers
    inner = model.sense(bright, state, regions)[:, :, 2:-2, 2:-2]
    assert (inner > 2).all()
    assert (model.look_at(state, torch.tensor([[0.5, 0.5]])).regions.scale == 0.5).all()


def test_the_edge_of_a_small_region_is_sampled_like_theirs(tiny: Make, images: Tensor) -> None:
    """Its outermost samples lie less than half a pixel from the edge of the scene, beyond which everything is the mean."""
    model = tiny()
    state, _ = model.start(images, gz.Noise.of(0, torch.arange(5)))
    for x, y, scale in ((-0.95, 0.95, 0.05), (0.3, -0.7, 0.3), (0.0, 0.0, 1.0)):
        regions = gz.Regions.one_each(torch.tensor([[x, y]]).expand(5, 2), scale)
        viewpoint = Viewpoint(centers=torch.tensor([[y, x]]).float().expand(5, 2), scales=torch.full((5,), scale))
        expected = sample_at_viewpoint(spatial=imagenet_normalize(images), viewpoint=viewpoint, glimpse_size_px=32)
        close(model.sense(images, state, regions), expected)


def test_grey_images_are_seen_in_three_equal_channels(tiny: Make) -> None:
    grey = torch.rand(2, 1, 32, 32)
    one = tiny(gz.Task((32, 32), 1, ("a", "b"), mean=(0.4,), std=(0.2,)), glimpses=2)
    three = tiny(gz.Task((32, 32), 3, ("a", "b"), mean=(0.4,) * 3, std=(0.2,) * 3), glimpses=2)
    close(run(one, grey).logits, run(three, grey.expand(-1, 3, -1, -1)).logits)
    with pytest.raises(gz.GlimpseZooError, match="expected images with 1 or 3 channels, got 2"):
        tiny(gz.Task((32, 32), 2, ("a", "b")))


def test_bfloat16_is_the_authors_autocast(tiny: Make, images: Tensor) -> None:
    model = tiny(policy="whole", glimpses=2)
    twin = theirs(model)
    model.computing = Computing("bf16")
    logits = run(model, images).logits
    whole = Viewpoint.full_scene(batch_size=5, device=None)
    state = twin.init_state(batch_size=5, canvas_grid_size=4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            glimpse = sample_at_viewpoint(spatial=imagenet_normalize(images), viewpoint=whole, glimpse_size_px=32)
            expected, state = twin(glimpse=glimpse, state=state, viewpoint=whole)
    assert logits.dtype == expected.dtype == torch.float32
    close(logits, expected)
    model.computing = Computing()
    assert (run(model, images).logits - logits).abs().max() > 1e-4


def test_gradients_in_float64_are_exact(tiny: Make, images: Tensor) -> None:
    """The package computes rotations in float32 whatever the weights are, which would drown a difference quotient."""
    model, pixels = tiny(glimpses=2).double(), images[:1].double().requires_grad_()

    def value(x: Tensor) -> Tensor:
        return gz.rollout(model, x).logits[0, 0]

    (gradient,) = torch.autograd.grad(value(pixels), pixels)
    direction = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        quotient = (value(pixels + 1e-5 * direction) - value(pixels - 1e-5 * direction)) / 2e-5
    assert quotient.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-7)


def by_hand(tokens: int, cells: int, patches: int, *, width: int, hidden: int, blocks: int, canvas: int, pairs: int) -> int:
    """MACs of a glimpse: patches, viewpoint, blocks (four projections, an MLP, attention), then reads and writes."""
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    pair = 2 * (2 * tokens * width * canvas + 2 * tokens * cells * canvas)
    return patches * 3 * 16**2 * width + 3 * width // 2 + blocks * block + pairs * pair


def test_a_glimpse_costs_what_the_authors_count(tiny: Make, images: Tensor) -> None:
    model = tiny()
    macs = run_with_meter(model, images)
    each = by_hand(1 + 1 + 2 + 4, 3 + 16, 4, width=32, hidden=128, blocks=2, canvas=24, pairs=1)
    assert glimpse_flops(model.canvit.config, glimpse_size_px=32, canvas_grid_size=4) == 2 * each
    assert (macs.fuse == each).all()
    assert (macs.classify == 32 * 3).all()
    assert not macs.sense.any()
    assert not macs.locate.any()
    assert [model.paper_macs(step).value for step in (1, 2, 6)] == [each, 2 * each, 6 * each]


def run_with_meter(model: CanViT, images: Tensor) -> Any:
    with torch.no_grad():
        return gz.rollout(model, images, record=gz.Record(every_step=True, meter=Meter(model))).macs


def test_the_released_network_takes_7_74_gmacs_a_glimpse() -> None:
    """The card's own settings, by the authors' formula and by ours; and the size of the released file: 95,928,936 numbers on the Hub."""
    with torch.device("meta"):
        model = gz.create_model("canvit", task=gz.Task((512, 512), 3, tuple(map(str, range(1000)))))
    each = by_hand(1 + 1 + 5 + 64, 16 + 1024, 64, width=768, hidden=3072, blocks=12, canvas=1024, pairs=3)
    assert model.paper_macs(1).value == each == 7_738_412_160
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == 95_928_936


def test_an_oracle_searches_without_a_locator(tiny: Make, images: Tensor) -> None:
    model = tiny(policy="oracle", glimpses=3)
    trace = run(model, images)
    assert len(trace.looks) == 3
    others = [run(tiny(policy=policy, glimpses=1), images).logits for policy in ("centre", "entropy", "scan")]
    right, *rest = (logits.log_softmax(1)[range(5), LABELS].mean().item() for logits in (trace.logits_by_step()[:, 0], *others))
    assert right > max(rest)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"policy": "learned"}, "CanViT has none of its own, got 'learned'"),
        ({"policy": "corse-to-fine"}, "'coarse-to-fine'"),
        ({"backbone": "vitl16"}, "--set backbone=vitl16 for canvit: .*vitb16"),
        ({"glimpse": 100}, "glimpse of canvit: .*multiple of 16, got 100"),
        ({"canvas_head_dim": 6}, "canvas_head_dim of canvit: .*multiple of 4, got 6"),
        ({"revision": ""}, "--set revision= for canvit"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_line(tiny: Make, settings: dict[str, Any], error: str) -> None:
    with pytest.raises(gz.GlimpseZooError, match=error) as caught:
        tiny(**settings)
    assert "\n" not in str(caught.value)


def test_it_looks_at_one_region_per_image(tiny: Make, images: Tensor) -> None:
    model = tiny()
    state, _ = model.start(images, gz.Noise.of(0, torch.arange(5)))
    two = gz.Regions(
        image=torch.arange(5).repeat_interleave(2), centre=torch.zeros(10, 2), scale=torch.ones(10), level=torch.zeros(10).long(),
        parent=torch.zeros(10).long() - 1, batch=5,
    )  # fmt: skip
    with pytest.raises(gz.GlimpseZooError, match="one region per image, got 10 for 5 images"):
        model.fuse(state, gz.Decision.certain(two), model.sense(images, state, two))
    with pytest.raises(gz.GlimpseZooError, match="cannot follow the policy 'learned', because it has no locator of its own"):
        model.follow(gz.find_policy("learned"))
