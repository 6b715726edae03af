"""Released checkpoints: files of their layout give the outputs of a plain loop over torch's and torchvision's own modules."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from glimpsezoo_gfnet.backbones import Encoder
from glimpsezoo_gfnet.config import GFNetConfig
from glimpsezoo_gfnet.importer import BACKBONES, importer
from glimpsezoo_gfnet.model import GFNet
from torch import Tensor, nn

from glimpsezoo import GlimpseZooError, Record, rollout

SIDE, PATCH, CLASSES, HIDDEN, PLACE_HIDDEN = 224, 32, 5, 12, 10
SMALL = "mobilenetv3_small_050"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Network(nn.Module):
    """A backbone with the names that the authors' files use, and what it computes: feature map, and the vector before its classifier."""

    def __init__(self, net: nn.Module, classifier: str, compute: Callable[[Any, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.net, self.classifier, self.compute = net, classifier, compute

    def published(self) -> dict[str, Tensor]:
        return {f"module.{pycls(name)}": tensor.clone() for name, tensor in self.net.state_dict().items()}


def pycls(name: str) -> str:
    """torchvision's names in a RegNet as pycls has them; other names are the same in both."""
    name = re.sub(r"^trunk_output\.block(\d)\.block\d-(\d+)\.", lambda m: f"s{m[1]}.b{int(m[2]) + 1}.", name)
    for layer in "abc":
        name = name.replace(f".f.{layer}.0.", f".f.{layer}.").replace(f".f.{layer}.1.", f".f.{layer}_bn.")
    name = name.replace(".f.se.fc1.", ".f.se.f_ex.0.").replace(".f.se.fc2.", ".f.se.f_ex.2.")
    name = name.replace(".proj.0.", ".proj.").replace(".proj.1.", ".bn.")
    return re.sub(r"^stem\.1\.", "stem.bn.", re.sub(r"^stem\.0\.", "stem.conv.", name))


def _resnet(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
    return x, x.mean((2, 3))


def _densenet(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = F.relu(net.features(x))
    return x, x.mean((2, 3))


def _regnet(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = net.trunk_output(net.stem(x))
    return x, x.mean((2, 3))


def _mobilenet(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = net.blocks(net.bn1(net.conv_stem(x)))
    return x, net.act2(net.conv_head(x.mean((2, 3), keepdim=True))).flatten(1)


def network(backbone: str) -> Network:
    """By timm's name."""
    if backbone.startswith("mobilenet"):
        return Network(timm.create_model(backbone, num_classes=CLASSES), "classifier", _mobilenet)
    if backbone == "regnety_004":
        return Network(torchvision.models.regnet_y_400mf(num_classes=CLASSES), "fc", _regnet)
    net = getattr(torchvision.models, backbone)(num_classes=CLASSES)
    return Network(net, *(("classifier", _densenet) if backbone.startswith("densenet") else ("fc", _resnet)))


class Released:
    """The published network, its file, and a run of it, one image after the other."""

    def __init__(self, name: str, looks: int, backbone: str = "") -> None:
        """backbone: a smaller one of the same family in place of the one that the authors call `name`."""
        torch.manual_seed(0)
        self.name, self.looks = name, looks
        self.glance, self.focus = network(backbone or name), network(backbone or name)
        channels, width = self._widths()
        convolution = name.startswith(("mobilenet", "regnet"))
        entrance = (
            [nn.Conv2d(channels, 32, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(32, PLACE_HIDDEN), nn.ReLU()]
            if convolution
            else [nn.Linear(channels, 2048), nn.ReLU(), nn.Linear(2048, PLACE_HIDDEN), nn.ReLU()]
        )
        self.flat = not convolution
        self.policy = nn.ModuleDict(
            {
                "state_encoder": nn.Sequential(*entrance),
                "gru": nn.GRU(PLACE_HIDDEN, PLACE_HIDDEN),
                "actor": nn.Sequential(nn.Linear(PLACE_HIDDEN, 2), nn.Sigmoid()),
                "critic": nn.Sequential(nn.Linear(PLACE_HIDDEN, 1)),
            }
        )
        self.fc = nn.ModuleDict(
            {f"fc_{k}": nn.Linear(k * width, CLASSES) for k in range(2, 6)}
            if name.startswith("mobilenet")
            else {"rnn": nn.GRU(width, HIDDEN), "fc": nn.Linear(HIDDEN, CLASSES)}
        )
        for part in (self.glance, self.focus, self.policy, self.fc):
            part.eval()
            for tensor_name, tensor in part.state_dict().items():  # no bias, gain or statistic may be zero or one
                if tensor.is_floating_point() and tensor.ndim == 1:
                    noise = torch.rand_like(tensor)
                    tensor.add_(0.3 * (noise if "running_var" in tensor_name else noise - 0.5))
        with torch.no_grad():
            self.policy["actor"][0].weight.mul_(30)  # places that differ between images

    def _widths(self) -> tuple[int, int]:
        self.glance.eval()
        map, vector = self.glance.compute(self.glance.net, torch.zeros(1, 3, PATCH, PATCH))
        return map.shape[1], vector.shape[1]

    def run(self, image: Tensor) -> tuple[list[Tensor], list[tuple[int, int]]]:
        """An image [3, H, W] in [0, 1] -> the logits of every look, and the upper left pixels (row, column) of its crops."""
        x = ((image - MEAN) / STD)[None]
        mode = "bicubic" if self.name.startswith(("resnet", "mobilenet")) else "bilinear"
        map, vector = self.glance.compute(self.glance.net, F.interpolate(x, (PATCH, PATCH), mode=mode, align_corners=True))
        own_head = self.name.startswith(("regnet", "mobilenet"))
        vectors, logits, corners, memory = [vector], [], [], None
        if "rnn" in self.fc:
            out, memory = self.fc["rnn"](vector[None])
            logits.append(self.fc["fc"](out[0]))
        if own_head:
            logits = [getattr(self.glance.net, self.glance.classifier)(vector)]
        place_memory = None
        for _ in range(self.looks - 1):
            seen = self.policy["state_encoder"](map.flatten(1) if self.flat else map)
            out, place_memory = self.policy["gru"](seen[None], place_memory)
            row, column = (int(each) for each in torch.floor(self.policy["actor"](out[0])[0] * (SIDE - PATCH)))
            corners.append((row, column))
            map, vector = self.focus.compute(self.focus.net, x[:, :, row : row + PATCH, column : column + PATCH])
            vectors.append(vector)
            if memory is None:
                logits.append(self.fc[f"fc_{len(vectors)}"](torch.cat(vectors, 1)))
            else:
                out, memory = self.fc["rnn"](vector[None], memory)
                logits.append(self.fc["fc"](out[0]))
        return [each[0] for each in logits], corners

    def content(self) -> dict[str, Any]:
        """What the file holds, with numbers of the same kinds as the authors'."""
        return {
            "model_name": self.name,
            "patch_size": PATCH,
            "model_prime_state_dict": self.glance.published(),
            "model_state_dict": self.focus.published(),
            "fc": self.fc.state_dict(),
            "policy": self.policy.state_dict(),
            "flops": [2e8 * k for k in range(1, self.looks + 1)],
            "model_flops": 2e8,
            "policy_flops": 1e6,
            "fc_flops": 1e6,
            "anytime_classification": [60.0 + k for k in range(self.looks)],
            "dynamic_threshold": torch.linspace(0.1, 0.9, 39 * self.looks).view(39, self.looks),
            "budgeted_batch_classification": [[1e8 + 1e6 * k for k in range(39)], [60.0 + k / 10 for k in range(39)]],
        }


def imported(content: dict[str, Any], folder: Path, backbone: str = SMALL) -> Any:
    torch.save(content, folder / "gfnet.pth.tar", _use_new_zipfile_serialization=False)  # as torch 1.3 wrote it
    return importer(folder / "gfnet.pth.tar", {"backbone": backbone})


SLOW = [pytest.param(name, 2, name, marks=pytest.mark.slow) for name in ("resnet50", "densenet121", "mobilenetv3_large_100")]


@pytest.mark.parametrize(
    ("name", "looks", "backbone"),
    [("resnet50", 3, "resnet18"), ("regnety_800m", 3, "regnety_004"), ("mobilenetv3_large_100", 3, SMALL), *SLOW],
)
def test_an_imported_network_gives_the_outputs_of_a_plain_loop_at_every_look(name: str, looks: int, backbone: str, tmp_path: Path) -> None:
    released = Released(name, looks, backbone)
    config, task, tensors, notes, published, _ = imported(released.content(), tmp_path, backbone=backbone)
    model = GFNet(config, task).eval()
    model.load_state_dict(tensors)
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    images[1] = F.avg_pool2d(images[1], 9, 1, 4)
    with torch.no_grad():
        trace = rollout(model, images, record=Record(every_step=True))
        for row, image in enumerate(images):
            logits, corners = released.run(image)
            torch.testing.assert_close(trace.logits_by_step()[row], torch.stack(logits), atol=1e-4, rtol=1e-4)
            for look, (top, left) in zip(trace.looks[1:], corners, strict=True):
                centre = torch.tensor([left + PATCH / 2, top + PATCH / 2]) / SIDE * 2 - 1
                torch.testing.assert_close(look.decision.regions.centre[row], centre, atol=1e-6, rtol=0)
    steps = trace.logits_by_step()
    assert (steps[:, 0] - steps[:, -1]).abs().max() > 1e-3  # the looks differ, so that equality means something
    assert (steps[0] - steps[1]).abs().max() > 1e-3
    assert any(f"images of {SIDE} px" in note for note in notes)
    assert published.top1 == pytest.approx([0.6 + k / 100 for k in range(looks)])


@pytest.fixture(scope="module")
def mobile() -> dict[str, Any]:
    """A file with three looks."""
    return Released("mobilenetv3_large_100", 3, SMALL).content()


def test_the_authors_numbers_come_along(mobile: dict[str, Any], tmp_path: Path) -> None:
    _, _, _, notes, published, _ = imported(mobile, tmp_path)
    assert published.macs == (2e8, 4e8, 6e8)
    assert len(published.exits) == 39
    assert published.exits[38].thresholds == pytest.approx(mobile["dynamic_threshold"][38].tolist())
    assert (published.exits[1].macs, published.exits[1].top1) == (pytest.approx(1.01e8), pytest.approx(0.601))
    assert any("fc_4, fc_5" in note for note in notes)


def test_macs_in_billions_are_recognised_by_the_models_own(mobile: dict[str, Any], tmp_path: Path) -> None:
    small = {**mobile, "flops": [0.005 * k for k in (1, 2, 3)]}  # the network takes a few M MACs at 32 px
    _, _, _, notes, published, _ = imported(small, tmp_path)
    assert published.macs == pytest.approx([5e6, 1e7, 1.5e7])
    assert any("1e+09" in note for note in notes)


def test_what_the_file_does_not_say_is_noted(mobile: dict[str, Any], tmp_path: Path) -> None:
    short = {key: value for key, value in mobile.items() if key not in {"dynamic_threshold", "anytime_classification"}}
    _, _, _, notes, published, _ = imported(short, tmp_path)
    assert (published.top1, published.exits) == ((), ())
    assert all(any(word in note for note in notes) for word in ("dynamic_threshold", "anytime_classification"))


@pytest.mark.parametrize("key", ["dynamic_threshold", "budgeted_batch_classification", "anytime_classification"])
def test_none_is_noted_as_what_the_file_does_not_say(key: str, mobile: dict[str, Any], tmp_path: Path) -> None:
    _, _, _, notes, published, _ = imported({**mobile, key: None}, tmp_path)
    assert any(key in note for note in notes)
    assert bool(published.top1) == (key != "anytime_classification")
    assert bool(published.exits) == (key == "anytime_classification")


def test_macs_and_accuracies_may_be_tensors(mobile: dict[str, Any], tmp_path: Path) -> None:
    keys = ("flops", "anytime_classification", "budgeted_batch_classification")
    _, _, _, _, published, _ = imported({**mobile, **{key: torch.tensor(mobile[key], dtype=torch.float64) for key in keys}}, tmp_path)
    assert published == imported(mobile, tmp_path)[4]


def test_fewer_looks_than_the_files_keep_the_accuracy_of_those_that_are_left(mobile: dict[str, Any], tmp_path: Path) -> None:
    torch.save(mobile, tmp_path / "a.pth.tar")
    config, _, _, notes, published, _ = importer(tmp_path / "a.pth.tar", {"backbone": SMALL, "glimpses": "2"})
    assert config.glimpses == 2
    assert (published.top1, published.macs) == (pytest.approx([0.6, 0.61]), (2e8, 4e8))
    assert published.exits == ()
    assert notes[1:] == [
        "the authors' thresholds of early exits left out: they are of 3 looks, not of 2",
        "2 looks, as was set; the file has 3",
        "fc_3, fc_4, fc_5 left out: of more than 2 looks",
    ]


def test_only_the_backbone_that_the_authors_crop_otherwise_asks_the_data_for_a_crop(mobile: dict[str, Any], tmp_path: Path) -> None:
    assert imported(mobile, tmp_path)[5] == {}
    _, task, _, notes, _, of_data = imported({**mobile, "model_name": "efficientnet_b3"}, tmp_path)
    assert (task.image_size, of_data) == ((300, 300), {"crop": 0.904})
    assert "data.crop=0.904" in notes[0]


def test_names_without_a_wrapper_and_without_counters_are_read_too(mobile: dict[str, Any], tmp_path: Path) -> None:
    bare = dict(mobile)
    for part in ("model_state_dict", "model_prime_state_dict"):
        bare[part] = {k.removeprefix("module."): v for k, v in mobile[part].items() if not k.endswith("num_batches_tracked")}
    _, _, tensors, *_ = imported(bare, tmp_path)
    assert torch.equal(tensors["focus.net.conv_stem.weight"], mobile["model_state_dict"]["module.conv_stem.weight"])


def _drop(part: str, name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part].pop(name)


def _put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(name, value)


def _nested() -> list[Any]:
    """A list that contains itself."""
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda content: content.pop("fc"), "'fc'"),
        (lambda content: content.pop("model_name"), "'model_name'"),
        (_put("patch_size", "big"), "'patch_size'"),
        (_put("flops", []), "'flops'"),
        (_put("flops", None), "'flops'"),
        (_put("flops", [0.0, 1e8, 2e8]), r"positive numbers as 'flops' of gfnet.pth.tar, got \[0.0, "),
        (_put("flops", [[1e8], [2e8]]), r"'flops' of gfnet.pth.tar, got \[\[100000000.0\]"),
        (_put("flops", [1e8, "many"]), "'flops'"),
        (_put("flops", [1e8, float("inf")]), "'flops'"),
        (_put("flops", [1e8, 10**400]), "'flops'"),
        (_put("flops", torch.zeros(0)), "'flops'"),
        (_put("flops", torch.zeros(3)), "'flops'"),
        (_put("flops", torch.tensor(1e8)), "'flops'"),
        (_put("flops", torch.ones(2, 2)), "'flops'"),
        (_put("anytime_classification", [60.0, 61.0, 101.0]), r"0 to 100 % as 'anytime_classification' .* got \[60.0, 61.0, 101.0\]"),
        (_put("anytime_classification", [60.0, 61.0, float("nan")]), "'anytime_classification' .* nan"),
        (_put("anytime_classification", 60.0), "'anytime_classification'"),
        (_put("anytime_classification", torch.ones(3, 2)), "'anytime_classification'"),
        (_put("anytime_classification", {"top1": 3}), "'anytime_classification'"),
        (_put("dynamic_threshold", [0.1] * 39), "'dynamic_threshold'"),
        (_put("dynamic_threshold", torch.full((39, 3), float("nan"))), "'dynamic_threshold' .* nan"),
        (_put("dynamic_threshold", "none"), "'dynamic_threshold'"),
        (_put("dynamic_threshold", _nested()), "'dynamic_threshold'"),
        (_put("flops", [1e2, 1e300, 1e308]), "'flops'"),  # in millions or billions, some are beyond floats
        (_put("budgeted_batch_classification", [1e8, 60.0]), "'budgeted_batch_classification'"),
        (_put("budgeted_batch_classification", [[1e8] * 39, [160.0] * 39]), "0 to 100 % as 'budgeted_batch_classification'"),
        (_put("budgeted_batch_classification", [[0.0] * 39, [60.0] * 39]), "positive MACs"),
        (
            lambda content: content["model_prime_state_dict"].pop("module.conv_stem.weight"),
            "'conv_stem.weight' in 'model_prime_state_dict'",
        ),
        (_drop("policy", "actor.0.bias"), "lacks 'actor.0.bias' in 'policy'"),
        (_drop("model_state_dict", "module.conv_head.bias"), "lacks 'conv_head.bias' in 'model_state_dict'"),
        (lambda content: content["policy"].update({"actor.0.bias": torch.zeros(3)}), r"shape \(2,\), got \(3,\)"),
        (lambda content: content["model_state_dict"].update({"module.extra": torch.zeros(3)}), "'extra'"),
        (lambda content: content.__setitem__("policy", {"weight": torch.zeros(3)}), "'policy.actor.0.weight'"),
    ],
)
def test_files_of_another_layout_are_refused_in_one_line(
    change: Callable[[dict[str, Any]], Any], part: str, mobile: dict[str, Any], tmp_path: Path
) -> None:
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in mobile.items()}
    change(content)
    with pytest.raises(GlimpseZooError, match=part) as caught:
        imported(content, tmp_path)
    assert "\n" not in str(caught.value)


class Innocent:
    """A class that is not allowed."""


def test_only_tensors_and_plain_values_are_unpickled(mobile: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(GlimpseZooError, match="Innocent"):
        imported({**mobile, "args": Innocent()}, tmp_path)


def test_a_backbone_that_the_authors_do_not_have_is_refused(mobile: dict[str, Any], tmp_path: Path) -> None:
    torch.save({**mobile, "model_name": "resnet51"}, tmp_path / "a.pth.tar")
    with pytest.raises(GlimpseZooError, match=r"resnet50, densenet121.*got 'resnet51'"):
        importer(tmp_path / "a.pth.tar", {})


LINEAR, CONV, SIDE_BY_SIDE = ("gru", "linear", 1024), ("gru", "conv", 256), ("concatenate", "conv", 256)
CONFIGURATIONS = {  # widths of vector and map, classifier and policy, resizing: the authors' table
    "resnet50": (2048, 2048, *LINEAR, "bicubic"),
    "densenet121": (1024, 1024, *LINEAR, "bilinear"),
    "densenet169": (1664, 1664, *LINEAR, "bilinear"),
    "densenet201": (1920, 1920, *LINEAR, "bilinear"),
    "mobilenetv3_large_100": (1280, 960, *SIDE_BY_SIDE, "bicubic"),
    "mobilenetv3_large_125": (1280, 1200, *SIDE_BY_SIDE, "bicubic"),
    "efficientnet_b2": (1408, 1408, *SIDE_BY_SIDE, "bicubic"),
    "efficientnet_b3": (1536, 1536, *SIDE_BY_SIDE, "bicubic"),
    "regnety_600m": (608, 608, *CONV, "bilinear"),
    "regnety_800m": (768, 768, *CONV, "bilinear"),
    "regnety_1.6g": (888, 888, *CONV, "bilinear"),
}
BUILT = ("mobilenetv3_large_125", "regnety_600m")


@pytest.mark.parametrize("name", [*BUILT, *(pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES if name not in BUILT)])
def test_a_backbone_has_the_widths_and_settings_of_the_authors(name: str) -> None:
    backbone, _ = BACKBONES[name]
    config = GFNetConfig.parse({"backbone": backbone, "patch": 96}, owner="gfnet")
    with torch.device("meta"):  # shapes alone
        encoder = Encoder(backbone, 3, 2, 96)
    found = (encoder.width, encoder.map_shape[0], config.classifier, config.locator, config.locator_hidden, config.resize)
    assert found == CONFIGURATIONS[name]
    assert encoder.map_shape[1:] == (3, 3)
    assert set(CONFIGURATIONS) == set(BACKBONES)
