"""timm's own weights: which rows of an ImageNet head are taken, and the errors if there are none. No test uses the network."""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from glimpsezoo_timm import backbone as backbone_module
from glimpsezoo_timm.config import TimmConfig
from glimpsezoo_timm.labels import imagenet_rows
from glimpsezoo_timm.model import TimmModel
from safetensors.torch import save_file
from torch import Tensor

from glimpsezoo import GlimpseZooError, Task, rollout

CLASSES = ("n01443537", "n01440764", "n15075141")  # goldfish, tench, toilet tissue: rows 1, 0 and 999
ROWS = [1, 0, 999]


def publish(architecture: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> torch.nn.Module:
    """Let timm load random weights of 1,000 classes from a file instead of its own from the Hub; returns the model with them."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=1000, **options).eval()
    save_file({name: value.clone() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    overlay = {"file": str(folder / "model.safetensors")}
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, pretrained_cfg_overlay=overlay))
    monkeypatch.setattr(backbone_module, "check_weights", lambda architecture, source: None)
    return model


def config(architecture: str, **settings: object) -> TimmConfig:
    return TimmConfig(architecture=architecture, **settings)  # type: ignore[arg-type]


# A linear head, a head that is a convolution, and two heads that are averaged.
@pytest.mark.parametrize("architecture", ["test_resnet", "dla46x_c", "deit_tiny_distilled_patch16_224"])
@torch.no_grad()
def test_the_cut_head_gives_the_logits_of_the_datas_classes(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 224 if architecture.startswith("deit") else 64
    whole = publish(architecture, tmp_path, monkeypatch)
    model = TimmModel.pretrained(config(architecture), Task((size, size), 3, CLASSES)).eval()
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected: Tensor = whole(model.prepared(x))[:, ROWS]
    assert expected.std() > 1e-4
    torch.testing.assert_close(rollout(model, x).logits, expected)


@torch.no_grad()
def test_all_classes_in_another_order_are_reordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = publish("test_resnet", tmp_path, monkeypatch)
    names = timm.data.ImageNetInfo().label_names()
    model = TimmModel.pretrained(config("test_resnet"), Task((64, 64), 3, tuple(reversed(names)))).eval()
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(rollout(model, x).logits, whole(model.prepared(x)).flip(1))


@torch.no_grad()
def test_published_weights_see_grey_images_as_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm sums the first convolution over the colours, as if every colour channel were the grey image."""
    whole = publish("test_resnet", tmp_path, monkeypatch)
    model = TimmModel.pretrained(config("test_resnet"), Task((64, 64), 1, CLASSES)).eval()
    x = torch.rand(2, 1, 64, 64)
    expected = whole(model.prepared(x).expand(-1, 3, -1, -1))[:, ROWS]
    torch.testing.assert_close(rollout(model, x).logits, expected)


@torch.no_grad()
def test_published_weights_of_one_size_serve_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("test_vit", tmp_path, monkeypatch)
    model = TimmModel.pretrained(config("test_vit", image_size=96), Task((64, 64), 3, CLASSES)).eval()
    assert rollout(model, torch.rand(2, 3, 64, 64)).logits.shape == (2, 3)
    assert model.backbone.pos_embed.shape[1] == 6 * 6 + 1


@pytest.mark.parametrize(
    "classes",
    [
        ("n01440764", "n03642806", "n15075141"),
        ("tench, Tinca tinca", "laptop, laptop computer", "toilet tissue, toilet paper, bathroom tissue"),
        ("tench", "Laptop", "toilet_tissue"),
    ],
)
def test_classes_are_found_by_id_name_and_first_synonym(classes: tuple[str, ...]) -> None:
    assert imagenet_rows(classes, 1000) == [0, 620, 999]


def test_a_whole_name_comes_before_a_first_synonym() -> None:
    assert imagenet_rows(("maillot", "maillot, tank suit", "cardigan"), 1000) == [638, 639, 474]


def test_larger_heads_have_their_own_rows() -> None:
    labels = timm.data.ImageNetInfo("imagenet-12k").label_names()
    assert imagenet_rows(("n01440764",), 11821) == [labels.index("n01440764")]


@pytest.mark.parametrize(
    ("classes", "head", "line"),
    [
        (("0", "1", "tench"), 1000, r"2 others among the data's 3 \('0', '1'\)"),
        (("crane", "tench"), 1000, "'crane' matches 2 classes of imagenet-1k: .*WordNet id"),
        (("tench", "n01440764"), 1000, "'tench' and another .* class of imagenet"),
        (("tench",), 512, "got a head of 512 classes"),
    ],
)
def test_classes_that_are_no_subset_get_one_line(classes: tuple[str, ...], head: int, line: str) -> None:
    with pytest.raises(GlimpseZooError, match=line) as error:
        imagenet_rows(classes, head)
    assert "\n" not in str(error.value)


def test_without_network_there_is_one_line_and_no_retrying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def unreachable(self: object, repo: str, timeout: float) -> None:
        asked.append(repo)
        raise OSError("[Errno -2] Name or service\nnot known")

    def retry(*args: object, **kwargs: object) -> None:
        raise AssertionError("timm was asked to download")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr(timm, "create_model", retry)
    monkeypatch.setattr(backbone_module, "try_to_load_from_cache", lambda repo, file: None)
    with pytest.raises(GlimpseZooError, match=r"'timm/resnet18.tv_in1k'.*cannot be reached \(.*\): .*--checkpoint none") as error:
        TimmModel.pretrained(config("resnet18.tv_in1k"), Task((64, 64), 3, CLASSES))
    assert asked == ["timm/resnet18.tv_in1k"]
    assert "\n" not in str(error.value)


def test_weights_in_the_cache_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: object, repo: str, timeout: float) -> None:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr(backbone_module, "try_to_load_from_cache", lambda repo, file: "/cache/model.safetensors")
    source = backbone_module.published("resnet18.tv_in1k")
    backbone_module.check_weights("resnet18.tv_in1k", source)


def test_an_architecture_without_published_weights_says_so() -> None:
    with pytest.raises(GlimpseZooError, match="timm publishes no weights for 'convnext_atto_rms': did you mean 'convnext"):
        backbone_module.check_weights("convnext_atto_rms", backbone_module.published("convnext_atto_rms"))
