"""Settings, backbones and what the plugin registers: bad input is a one-line error."""

import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest
import torch
from glimpsezoo_mgnet.backbones import create_backbone
from glimpsezoo_mgnet.cnn4 import CNN4
from glimpsezoo_mgnet.config import CNN4Config, MGNetConfig
from glimpsezoo_mgnet.model import MGNet
from glimpsezoo_mgnet.plugin import register_importers, register_models

from glimpsezoo import GlimpseZooError, Task, rollout
from glimpsezoo.specs import load_string
from glimpsezoo.zoo.recipes import Recipe, find_recipe, recipe_names


def parse(**values: Any) -> MGNetConfig:
    return MGNetConfig.parse(values, owner="mgnet")


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("downsample", "7/0", "a fraction such as 7/3"),
        ("downsample", "much", "a fraction such as 7/3"),
        ("downsample", "1/2", "greater than or equal to 1"),
        ("downsample", "inf", "a fraction such as 7/3"),
        ("downsample", "1e999", "a fraction such as 7/3"),
        ("glimpses", "0", "greater than or equal to 1"),
        ("glimpses", "2.5", "valid integer"),
        ("scale", "0.5,0.2", "a_min <= a_max"),
        ("scale", "0,1.5", "a_min <= a_max"),
        ("scale", "0.2", "Field required|a_min"),
        ("alpha", "1.1", "less than or equal to 1"),
        ("gradient_scale", "0", "greater than 0"),
        ("size_penalty", "-1", "greater than or equal to 0"),
        ("policy", "centr", "did you mean 'centre'"),
        ("biases", "perhaps", "valid boolean"),
        ("glimpse", "3", "'glimpses'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(key: str, value: str, part: str) -> None:
    with pytest.raises(GlimpseZooError, match=part) as caught:
        parse(**{key: value})
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_from_the_command_line_becomes_values() -> None:
    config = parse(downsample="7/3", scale="0.3,0.4", glimpses="2", biases="true", maxpool="false")
    assert (config.downsample, config.scale, config.glimpses, config.biases, config.maxpool) == (7 / 3, (0.3, 0.4), 2, True, False)
    assert MGNetConfig.parse(config.model_dump(mode="json"), owner="card") == config  # also from a card's config.json


def test_the_gradient_scale_follows_the_backbone() -> None:
    assert (parse().gradient_scale, parse(backbone="resnet18").gradient_scale) == (0.02, 0.02)
    assert (parse(backbone="resnet50").gradient_scale, parse(backbone="resnet18", gradient_scale="0.5").gradient_scale) == (0.01, 0.5)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"backbone": "resnet19"}, "'resnet18'"),
        ({"backbone": "cnn5"}, "'cnn4'"),
        ({"backbone": "cnn4", "maxpool": False}, "maxpool=true"),
        ({"backbone": "cnn4", "downsample": 8}, "1 x 8 x 8 px"),
        ({"backbone": "vit_tiny_patch16_224", "downsample": 8}, "1 x 8 x 8 px"),
        ({"backbone": "hf-hub:timm/resnet18.a1_in1k"}, "expected a timm model"),
    ],
)
def test_backbones_that_cannot_be_are_refused_in_one_line(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(GlimpseZooError, match=part) as caught:
        MGNet(parse(**settings), Task((64, 64), 1, ("a", "b")))
    assert "\n" not in str(caught.value)


# A convolutional net with timm attributes that differ from the width of its feature, and a transformer with a fixed input size.
@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_timm_model_looks_at_grey_and_colour_glimpses_of_any_size(backbone: str, channels: int) -> None:
    model = MGNet(parse(backbone=backbone, downsample=2, glimpses=2), Task((96, 96), channels, ("a", "b", "c"))).eval()
    assert model.glimpse_size == (48, 48)
    assert rollout(model, torch.rand(2, channels, 96, 96)).logits.shape == (2, 3)


def test_leaving_out_the_max_pooling_doubles_the_feature_map() -> None:
    seen = {}
    for maxpool in (True, False):
        backbone, width = create_backbone("resnet18", 3, (64, 64), maxpool=maxpool)
        seen[maxpool] = backbone.forward_features(torch.zeros(1, 3, 64, 64)).shape[-1]
        assert width == 512
    assert seen == {True: 2, False: 4}


def test_the_plain_small_cnn_sees_the_normalised_image_once() -> None:
    torch.manual_seed(0)
    model = CNN4(CNN4Config(), Task((32, 32), 1, ("a", "b"), mean=(0.3,), std=(0.5,))).eval()
    x = torch.rand(3, 1, 32, 32)
    trace = rollout(model, x)
    assert trace.steps == 1
    torch.testing.assert_close(trace.logits, model.head(model.backbone((x - 0.3) / 0.5)))


def test_the_plugin_registers_what_can_be_loaded() -> None:
    specs = {spec.name: spec for spec in register_models()}
    assert sorted(specs) == ["cnn4", "mgnet"]
    for spec in specs.values():
        for reference in (spec.model, spec.config, spec.training_step):
            assert callable(load_string(str(reference)))
        for data, values in spec.defaults.items():
            load_string(spec.config).parse(values, owner=data)
    assert callable(load_string(register_importers()[0].importer))


def test_defaults_are_the_papers() -> None:
    defaults = {spec.name: spec for spec in register_models()}["mgnet"].defaults
    sizes = {"digits": 64, "tmnist": 112, "gtmnist": 112, "tiny-imagenet": 64, "imagenet100": 224}
    found = {}
    for data, side in sizes.items():
        config = parse(**defaults[data])
        with torch.device("meta"):
            model = MGNet(config, Task((side, side), 3, ("a", "b")))
        found[data] = (config.backbone, config.glimpses, model.glimpse_size[0], config.maxpool)
    assert found == {
        "digits": ("cnn4", 3, 16, True),
        "tmnist": ("cnn4", 3, 28, True),
        "gtmnist": ("cnn4", 5, 28, True),
        "tiny-imagenet": ("resnet18", 3, 32, False),
        "imagenet100": ("resnet18", 4, 96, True),
    }


def test_every_recipe_is_one_that_the_harness_reads_and_its_model_takes() -> None:
    texts = {entry.name: entry.read_text() for entry in files("glimpsezoo_mgnet.recipes").iterdir() if entry.name.endswith(".toml")}
    by_name = {spec.name: spec for spec in register_models()}
    listed = [name for spec in by_name.values() for name in recipe_names(spec)]
    assert sorted(f"{name}.toml" for name in listed) == sorted(texts)
    for name in listed:
        spec = by_name[name.split(".")[0]]
        recipe = find_recipe(spec, name)
        assert isinstance(recipe, Recipe)
        load_string(spec.config).parse({**spec.defaults.get(name.split(".")[1], {}), **recipe.settings}, owner=name)
        assert texts[f"{name}.toml"].startswith("#")
        command = f"glimpsezoo train {name}" if name.count(".") > 1 else f"glimpsezoo train {spec.name} --data {name.split('.')[1]}"
        assert command in texts[f"{name}.toml"]


def test_the_entry_point_and_the_settings_load_neither_torch_nor_timm() -> None:
    code = (
        "import sys, glimpsezoo_mgnet.plugin as p, glimpsezoo_mgnet.config; p.register_models(); p.register_importers(); "
        "print(sorted({'torch', 'timm', 'torchvision', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
