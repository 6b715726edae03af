"""What the plugin registers, and its recipes."""

import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from typing import Any

import pytest
from glimpsezoo_pyramid.architectures import levels_for
from glimpsezoo_pyramid.config import BaselineConfig, BaselineOptions, LearningRule, PyramidConfig
from glimpsezoo_pyramid.plugin import register_models

from glimpsezoo import GlimpseModel, Task
from glimpsezoo.specs import load_string

RECIPES = {
    entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
    for entry in files("glimpsezoo_pyramid.recipes").iterdir()
    if entry.name.endswith(".toml")
}
SPECS = {spec.name: spec for spec in register_models()}
SIDES = {"digits": 64, "imagenet": 256}


def test_models_by_name() -> None:
    assert sorted(SPECS) == sorted(
        f"pyramid-{family}{kind}{number}"
        for family, numbers in (("", "123"), ("imagenet-", "12"))
        for kind in ("m", "bl")
        for number in numbers
    )
    for spec in SPECS.values():
        config = load_string(spec.config)()
        model = load_string(spec.model)(config, Task((64, 64), 3, ("a", "b")))
        assert isinstance(model, GlimpseModel)
        assert (model.steps > 1) == isinstance(config, PyramidConfig)
        architecture = re.sub("bl", "m", spec.name.removeprefix("pyramid-"))
        assert model.architecture.name == architecture
        assert callable(load_string(str(spec.training_step)))


def test_registering_imports_nothing_heavy() -> None:
    code = (
        "import sys, glimpsezoo_pyramid.plugin, glimpsezoo_pyramid.config; print(sorted({'torch', 'timm', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_row_has_a_recipe() -> None:
    rows = {f"pyramid-{kind}{number}.plain-mnist.{size}" for kind in ("m", "bl") for number in "123" for size in (14, 28, 56)}
    rows |= {f"pyramid-m{number}.plain-mnist.56-12" for number in "123"}
    rows |= {f"pyramid-{kind}2.{data}-mnist.56" for kind in ("m", "bl") for data in ("textured", "noisy")}
    rows |= {f"pyramid-imagenet-{kind}{number}.imagenet.{size}" for kind in ("m", "bl") for number in "12" for size in (32, 64, 128, 256)}
    rows |= {f"pyramid-imagenet-m{number}.imagenet.multi-level" for number in "12"}
    assert set(RECIPES) >= rows | {"pyramid-m3.digits"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_one_that_its_model_takes(name: str) -> None:
    """Settings, options and levels fit; the comment at the top has the command; the learning rate is dropped as in the paper."""
    text, recipe = RECIPES[name], tomllib.loads(RECIPES[name])
    model, data, *variant = name.split(".")
    assert f"\n#     glimpsezoo train {name}\n" in text
    config = load_string(SPECS[model].config).parse(recipe.get("settings", {}), owner=name)
    side = recipe.get("data", {}).get("size", SIDES.get(data))
    for phase in recipe["phase"]:
        options = phase.get("options", {})
        if isinstance(config, BaselineConfig):
            BaselineOptions.parse(options, owner=name)
            continue
        rule, base = LearningRule.parse(options, owner=name), 32 if "imagenet" in model else 14
        steps = config.levels or levels_for((side, side), base)
        levels = rule.levels or steps
        assert levels <= steps
        for allowed, weight in enumerate(rule.weights(levels), start=1):
            if allowed > 1 and weight > 0:
                assert rule.targets(allowed, levels)[0] > 0
    if variant and variant[0].isdigit():
        last = recipe["phase"][-1].get("options", {})
        reached = config.resolution or side if isinstance(config, BaselineConfig) else base * 2 ** (last.get("levels", steps) - 1)
        assert reached == int(variant[0])


@pytest.mark.parametrize(("dataset", "expected"), [("mnist", (1e-6, 1e-7, 1e-7, 0.01, 70)), ("imagenet", (1e-8, 1e-9, 1e-9, 0.001, 200))])
def test_papers_constants(dataset: str, expected: tuple[float, ...]) -> None:
    """Appendices A.5.2 and A.6.2. A recipe that was trained here lists what it changed, and keeps the weights of the rule."""
    seen: list[dict[str, Any]] = []
    for name, text in RECIPES.items():
        if name.split(".")[1].endswith(dataset):
            recipe = tomllib.loads(text)
            assert recipe["batch_size"] == 128
            for phase in recipe["phase"]:
                assert phase["optimiser"] == "adam"
                changed = " ".join(re.findall(r"^# ?(.*)$", text, re.MULTILINE)).partition("Not as printed: ")[2].partition("Cost: ")[0]
                assert ("bfloat16" in changed) == (recipe.get("precision") == "bfloat16"), name
                assert ("start from the digits on black" in changed) == ("start" in recipe and ".plain-mnist." not in name), name
                if found := re.search(r"(\d+) epochs where the paper has 70, (?:and )?one cycle of Adam up to (\.\d+)", changed):
                    assert (phase["schedule"], phase["epochs"], phase["lr"]) == ("one-cycle", int(found[1]), float(found[2]))
                else:
                    assert (phase["schedule"], phase["milestones"], phase["decay"]) == ("step", [0.8, 0.9], 0.2)
                    assert (phase["lr"], phase["epochs"]) == expected[3:]
                if "lambda_f" in phase.get("options", {}):
                    assert phase["options"]["samples"] == (1 if found else 2)
                    assert ("and one sample per image" in changed) == bool(found)
                    seen.append(phase["options"])
    assert seen
    for options in seen:
        assert (options["lambda_f"], options["lambda_t"], options["lambda_r"]) == expected[:3]
