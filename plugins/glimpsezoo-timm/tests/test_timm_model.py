"""Any timm model as a glimpse model: the split of its forward, its cost, how it prepares images, and what it refuses."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from glimpsezoo_timm.config import TimmConfig
from glimpsezoo_timm.model import TimmModel
from PIL import Image
from torch import Tensor

from glimpsezoo import (
    Decision,
    GlimpseZooError,
    Meter,
    Noise,
    Record,
    Regions,
    Task,
    TrainingPhase,
    count_macs,
    cross_entropy_step,
    rollout,
)

# Families whose heads differ: a plain linear layer, a convolution before or as the classifier, an MLP, two averaged heads (levit,
# deit), a class token, channels last (swin), a head that is initialised with zeros (gmlp).
SPLIT = [
    "resnet18",
    "resnetv2_18",
    "dla46x_c",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "test_convnext",
    "efficientnet_b0",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",
    "levit_128s",
    "gmlp_ti16_224",
    "mixer_s32_224",
    "test_nfnet",
    "regnetx_002",
    "ghostnet_050",
]
WHOLE = ["coat_tiny"]  # its features are a list


def task(size: int = 64, channels: int = 1, classes: int = 10) -> Task:
    return Task((size, size), channels, tuple(str(i) for i in range(classes)))


def build(architecture: str, of: Task | None = None, **settings: object) -> TimmModel:
    torch.manual_seed(0)
    return TimmModel(TimmConfig(architecture=architecture, **settings), of or task()).eval()


def images(count: int = 2, channels: int = 1, size: int = 64) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", SPLIT + WHOLE)
@torch.no_grad()
def test_phases_are_the_models_own_forward_and_cost(architecture: str) -> None:
    model = build(architecture)
    for parameter in model.backbone.parameters():  # also heads that are initialised with zeros
        parameter.add_(0.02 * torch.randn_like(parameter))
    x = images()
    trace = rollout(model, x, record=Record(meter=Meter(model)))
    own = model.backbone(model.prepared(x))
    assert own.std() > 1e-3
    assert torch.equal(trace.logits, own)
    assert trace.macs is not None
    phases = {name: int(macs[0]) for name, macs in trace.macs.stopped_at(trace.last_step).items()}
    assert sum(phases.values()) == count_macs(lambda: model.backbone(model.prepared(x[:1]))).macs
    assert phases["sense"] > 0
    assert (phases["classify"] > 0) == model.split == (architecture in SPLIT)


def test_resnet18_at_224_with_100_classes_costs_what_is_printed_everywhere() -> None:
    model = build("resnet18", task(224, channels=3, classes=100))
    trace = rollout(model, images(1, channels=3, size=224), record=Record(meter=Meter(model)))
    assert trace.macs is not None
    phases = trace.macs.stopped_at(trace.last_step)
    assert f"{sum(int(macs) for macs in phases.values()) / 1e9:.4f}" == "1.8136"
    assert int(phases["classify"]) == 512 * 100


def test_building_leaves_a_model_as_timm_makes_it() -> None:
    model = TimmModel(TimmConfig(architecture="levit_128s"), task())
    assert model.training
    assert all(module.training for module in model.modules())
    statistics = {name: value for name, value in model.state_dict().items() if name.endswith(("running_mean", "num_batches_tracked"))}
    assert statistics
    assert not any(value.any() for value in statistics.values())
    # levit caches values computed from its weights in eval mode: weights that are loaded later must count
    other = build("levit_128s")
    weights = other.state_dict()
    model.load_state_dict({name: torch.randn_like(value) if "attention_biases" in name else value for name, value in weights.items()})
    x = model.prepared(images())
    assert not torch.allclose(model.eval().backbone(x), other.backbone(x))


@pytest.mark.parametrize(
    ("architecture", "resample"), [("resnet18.tv_in1k", Image.Resampling.BILINEAR), ("test_vit", Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize("size", [32, 96])
def test_images_are_resized_as_by_an_image_library(architecture: str, resample: Image.Resampling, size: int) -> None:
    config = timm.get_pretrained_cfg(architecture)
    assert config is not None
    assert config.interpolation == resample.name.lower()
    model = build(architecture, task(channels=3), image_size=size)
    x = images(1, channels=3)
    pixels = model.prepared(x) * torch.tensor(config.std).view(3, 1, 1) + torch.tensor(config.mean).view(3, 1, 1)
    for channel in range(3):
        expected = Image.fromarray(x[0, channel].numpy(), mode="F").resize((size, size), resample)
        torch.testing.assert_close(pixels[0, channel], torch.tensor(np.array(expected)).clamp(0, 1), atol=1e-4, rtol=0)


def test_images_of_the_right_size_are_only_normalised() -> None:
    grey, colour = build("test_efficientnet"), build("test_efficientnet", task(channels=3))
    x = images()
    mean, std = timm.get_pretrained_cfg("test_efficientnet").mean, timm.get_pretrained_cfg("test_efficientnet").std
    torch.testing.assert_close(grey.prepared(x), (x - sum(mean) / 3) / (sum(std) / 3))
    red = torch.cat([x, 0 * x, 0 * x], 1)
    torch.testing.assert_close(colour.prepared(red)[:, 0], (x[:, 0] - mean[0]) / std[0])
    torch.testing.assert_close(colour.prepared(red)[:, 2], torch.full_like(x[:, 0], -mean[2] / std[2]))


def test_normalisation_is_saved_with_the_weights() -> None:
    model = build("test_vit")
    assert {"mean", "std"} <= set(model.state_dict())


def test_image_size_sets_the_cost() -> None:
    def macs(model: TimmModel) -> int:
        return count_macs(lambda: rollout(model, images(1))).macs

    small, own, large = (build("resnet18", image_size=size) for size in (32, None, 128))
    assert macs(small) < macs(own) / 3.5
    assert macs(large) > macs(own) * 3.5
    assert build("resnet18", image_size="128").size == (128, 128)


def test_small_images_without_maxpool_and_with_small_patches() -> None:
    with_pool, without = build("resnet18"), build("resnet18", maxpool=False)
    x = images(1)
    assert with_pool.backbone.forward_features(with_pool.prepared(x)).shape[-2:] == (2, 2)
    assert without.backbone.forward_features(without.prepared(x)).shape[-2:] == (4, 4)
    vit = build("vit_tiny_patch16_224", patch_size=8)
    assert vit.backbone.forward_features(vit.prepared(x)).shape[1] == 8 * 8 + 1


def test_a_look_at_a_part_of_the_image_is_refused() -> None:
    model = build("test_vit")

    def elsewhere(images: Tensor, state: object, decision: Decision) -> Decision:
        return Decision.certain(Regions.one_each(torch.zeros(len(images), 2), 0.5))

    with pytest.raises(GlimpseZooError, match="looks at the whole image"):
        rollout(model, images(), choose=elsewhere)


@pytest.mark.parametrize(
    ("settings", "size", "line"),
    [
        ({"architecture": "resnet19"}, 64, r"expected the name of a timm model, got 'resnet19': did you mean 'resnet18'"),
        ({"architecture": "resnet18.a9_in1k"}, 64, r"one of its pretrained tags, got 'resnet18.a9_in1k': did you mean 'resnet18\.a"),
        ({"architecture": "hf-hub:timm/resnet18"}, 64, "expected the name of a timm model"),
        ({"architecture": "inception_v4"}, 64, r"inception_v4 cannot take images of 1 x 64 x 64 px \(.*--set image_size=299"),
        ({"architecture": "nest_tiny"}, 28, r"cannot take images of 1 x 28 x 28 px \(.*--set image_size=224"),  # fails while it is built
        ({"architecture": "crossvit_tiny_240"}, 64, r"cannot take images of 1 x 64 x 64 px \(.*--set image_size=240"),
        ({"architecture": "vit_tiny_patch16_224"}, 28, r"patches of 16 x 16 px, got 28 x 28 px: .*--set image_size=32"),
        ({"architecture": "test_vit", "maxpool": False}, 64, "test_vit has no max-pooling in its stem"),
        ({"architecture": "resnet18", "patch_size": 8}, 64, "resnet18 has no patch_size"),
    ],
)
def test_what_cannot_be_built_gets_one_line(settings: dict[str, object], size: int, line: str) -> None:
    with pytest.raises(GlimpseZooError, match=line) as error:
        build(settings.pop("architecture"), task(size), **settings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["0", "-3", "12.5", "big"])
def test_a_size_that_is_none_names_the_setting(value: str) -> None:
    with pytest.raises(GlimpseZooError, match=f"image_size={value}"):
        TimmConfig.parse({"architecture": "resnet18", "image_size": value}, owner="timm:resnet18")


def test_training_step_is_cross_entropy() -> None:
    model = build("test_vit").train()
    x, labels = images(4), torch.tensor([0, 1, 2, 3])
    phase = TrainingPhase(name="main", options={}, step=0, steps=1, epoch=0, noise=Noise.of(0, labels), memory={})
    losses = cross_entropy_step(model, x, labels, phase)
    expected = -F.log_softmax(model.backbone(model.prepared(x)), 1)[torch.arange(4), labels].mean()
    assert list(losses) == ["cross_entropy"]
    torch.testing.assert_close(losses["cross_entropy"], expected)
    losses["cross_entropy"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("architecture", "size", "macs"),
    [  # as fvcore counts them, with nn.LSTM in closed form: benchmarks/timm_macs.py
        ("sequencer2d_s", 224, 8_334_007_296),
        ("mobilenetv3_small_050", 224, 24_188_688),
        ("vit_tiny_patch16_224", 224, 1_253_683_200),
        ("edgenext_xx_small", 256, 257_905_088),
        ("halonet26t", 256, 3_172_810_752),
        ("lambda_resnet26t", 256, 3_003_465_728),
    ],
)
def test_macs_are_those_of_an_independent_count(architecture: str, size: int, macs: int) -> None:
    model, x = timm.create_model(architecture).eval(), torch.rand(1, 3, size, size)
    count = count_macs(lambda: model(x))
    assert (count.macs, count.missing) == (macs, frozenset())
