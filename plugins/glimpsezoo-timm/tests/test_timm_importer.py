"""Weights with timm's tensor names become a card with the same outputs as timm's model, also with prefixes from wrappers."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from glimpsezoo_timm.importer import importer
from glimpsezoo_timm.model import TimmModel
from torch import Tensor

from glimpsezoo import GlimpseZooError, rollout

ARCHITECTURE = "mobilenetv3_small_050"
SETTINGS = {"architecture": ARCHITECTURE, "image_size": "32"}


def timm_model(channels: int = 3, classes: int = 5) -> Any:
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, num_classes=classes, in_chans=channels).eval()


def averaged(model: Any) -> dict[str, Tensor]:
    return {name: tensor + 0.01 for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_imported_weights_give_timms_own_outputs(tmp_path: Path, before: str) -> None:
    own = timm_model(channels=1)
    torch.save({"state_dict": {before + name: tensor for name, tensor in own.state_dict().items()}, "epoch": 1}, tmp_path / "a.pth")
    config, task, tensors, notes = importer(tmp_path / "a.pth", SETTINGS)
    assert (task.channels, len(task.classes), task.image_size) == (1, 5, (32, 32))
    model = TimmModel(config, task).eval()
    model.load_state_dict(tensors)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(rollout(model, images).logits, own(model.prepared(images)))
    assert any(f"'{before}' was stripped" in note.replace("state_dict.", "") for note in notes) == bool(before)


def test_of_raw_and_averaged_weights_the_averaged_ones_are_taken_and_said(tmp_path: Path) -> None:
    own = timm_model()
    torch.save({"state_dict": own.state_dict(), "state_dict_ema": averaged(own)}, tmp_path / "a.pth")
    _, _, tensors, notes = importer(tmp_path / "a.pth", SETTINGS)
    torch.testing.assert_close(tensors["backbone.conv_stem.weight"], own.conv_stem.weight + 0.01)
    assert "raw weights ('state_dict.') and averaged weights ('state_dict_ema.')" in notes[0]


def named_as_efficientnet_pytorch(own: Any) -> dict[str, Tensor]:
    """The tensors of timm's EfficientNet with the names of the other project."""
    tops = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    renamed, number = {}, -1
    for name, tensor in own.state_dict().items():  # the other project's order is timm's, and so are its layers within a block
        top, _, kind = name.rpartition(".")
        if top in tops:
            renamed[f"{tops[top]}.{kind}"] = tensor
            continue
        _, stage, _, layer = name.split(".", 3)
        number += layer == ("conv_dw.weight" if stage == "0" else "conv_pw.weight")
        block = dict(zip(("conv_dw", "bn1", "conv_pw", "bn2"), ("_depthwise_conv", "_bn1", "_project_conv", "_bn2"), strict=True))
        if stage != "0":
            block = {
                "conv_pw": "_expand_conv",
                "bn1": "_bn0",
                "conv_dw": "_depthwise_conv",
                "bn2": "_bn1",
                "conv_pwl": "_project_conv",
                "bn3": "_bn2",
            }
        block |= {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
        inner, _, kind = layer.rpartition(".")
        renamed[f"_blocks.{number}.{block[inner]}.{kind}"] = tensor
    return renamed


def test_an_efficientnet_with_the_names_of_efficientnet_pytorch_gives_timms_own_outputs(tmp_path: Path) -> None:
    own = timm.create_model("tf_efficientnet_b0", num_classes=3).eval()  # with squeeze and excitation
    renamed = named_as_efficientnet_pytorch(own)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in renamed.items()}}, tmp_path / "e.pth")
    config, task, tensors, notes = importer(tmp_path / "e.pth", {"architecture": "tf_efficientnet_b0", "image_size": "64"})
    model = TimmModel(config, task).eval()
    model.load_state_dict(tensors)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(rollout(model, images).logits, own(model.prepared(images)))
    assert any("EfficientNet-PyTorch" in note for note in notes)


def test_names_of_efficientnet_pytorch_are_refused_for_a_model_that_computes_otherwise(tmp_path: Path) -> None:
    """All tensors fit, but that project pads and normalises as TensorFlow does."""
    torch.save(named_as_efficientnet_pytorch(timm.create_model("efficientnet_b0", num_classes=3)), tmp_path / "e.pth")
    with pytest.raises(GlimpseZooError, match=r"EfficientNet-PyTorch.*timm:efficientnet_b0.*timm:tf_efficientnet_b0") as caught:
        importer(tmp_path / "e.pth", {"architecture": "efficientnet_b0", "image_size": "64"})
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(timm_model().state_dict(), tmp_path / "a.pth")
    with pytest.raises(GlimpseZooError, match=r"tensor 'conv1\.weight' .* got a\.pth with") as caught:
        importer(tmp_path / "a.pth", {"architecture": "resnet18"})
    assert "\n" not in str(caught.value)
