"""Recipes: what they refuse, and how `--set train.KEY` changes them."""

import pytest

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import ModelSpec, load_string
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.recipes import Recipe, find_recipe, recipe_names

TEXT = """
batch_size = 8
[settings]
glimpses = 2
[[phase]]
name = "joint"
epochs = 3
optimiser = "sgd"
lr = 0.1
"""


def test_a_recipe_has_the_defaults_of_its_phases():
    recipe = Recipe.from_toml(TEXT, name="x")
    assert (recipe.seed, recipe.phase[0].momentum, recipe.phase[0].schedule) == (0, 0.9, "constant")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs = 3", "epochs or steps in phase 'joint', got neither"),
        ('optimiser = "sgd"', "optimiser"),
        ("batch_size = 8", "batch_size"),
    ],
)
def test_a_missing_key_is_named(change: str, message: str):
    with pytest.raises(GlimpseZooError, match=message):
        Recipe.from_toml(TEXT.replace(change, ""), name="x")


def test_what_is_no_toml_is_said_so_in_one_line():
    with pytest.raises(GlimpseZooError, match=r"TOML, got x \(") as caught:
        Recipe.from_toml("batch_size =", name="x")
    assert "\n" not in str(caught.value)


def test_override_reaches_the_recipe_and_every_phase():
    recipe = Recipe.from_toml(TEXT, name="x").override({"batch_size": "4", "steps": "7", "lr": "0.5"})
    assert (recipe.batch_size, recipe.phase[0].steps, recipe.phase[0].epochs, recipe.phase[0].lr) == (4, 7, None, 0.5)


def test_override_takes_tuples_and_none_as_settings_do():
    recipe = Recipe.from_toml(TEXT.replace("lr = 0.1", "lr = 0.1\nclip = 2.0"), name="x")
    changed = recipe.override({"milestones": "0.5,0.8", "trainable": "head.*", "clip": "none", "start": "cnn4.digits"})
    phase = changed.phase[0]
    assert (phase.milestones, phase.trainable, phase.clip, changed.start) == ((0.5, 0.8), ("head.*",), None, "cnn4.digits")
    assert changed.override({"start": "none"}).start is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": "fast"}, "^--set lr=fast for train: "),
        ({"clip": "-1"}, "^--set clip=-1 for train: "),
        ({"batch_size": "1"}, "^--set batch_size=1 for train: "),
        ({"settings": "x"}, "^expected a key .*, got 'train.settings': "),
        ({"adversarial": "none", "adversarial.eps": "0.1"}, "either .*adversarial=none or .*adversarial.eps, got both: leave one out"),
    ],
)
def test_what_override_refuses_is_named_as_it_was_typed(values: dict[str, str], message: str):
    with pytest.raises(GlimpseZooError, match=message):
        Recipe.from_toml(TEXT, name="x").override(values)


def test_one_cycle_moves_the_momentum_and_takes_none():
    cycle = TEXT + 'schedule = "one-cycle"\n'
    refused = "no momentum .*'one-cycle'.* got 0.8 in phase 'joint'"
    with pytest.raises(GlimpseZooError, match=refused):
        Recipe.from_toml(cycle + "momentum = 0.8", name="x")
    recipe = Recipe.from_toml(cycle, name="x")
    with pytest.raises(GlimpseZooError, match=refused):
        recipe.override({"momentum": "0.8"})
    assert recipe.override({"lr": "0.5"}).phase[0].lr == 0.5
    own = Recipe.from_toml(TEXT + "momentum = 0.8", name="x")
    assert own.override({"schedule": "one-cycle"}).phase[0] == recipe.phase[0]  # the recipe's own momentum goes
    with pytest.raises(GlimpseZooError, match=refused):
        own.override({"schedule": "one-cycle", "momentum": "0.8"})
    assert Recipe.parse(recipe.model_dump(mode="json", exclude_defaults=True), owner="a card's") == recipe


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(GlimpseZooError, match="did you mean 'epochs'"):
        Recipe.from_toml(TEXT, name="x").override({"epoch": "1"})


def test_a_model_without_that_recipe_names_those_it_has():
    with pytest.raises(GlimpseZooError, match=r"got 'mgnet.digit': did you mean 'mgnet.digits'.*--recipe"):
        find_recipe(registry().find(ModelSpec, "mgnet"), "mgnet.digit")


@pytest.mark.parametrize("spec", registry().all(ModelSpec), ids=lambda spec: spec.name)
def test_every_recipe_of_every_plugin_fits_its_model(spec: ModelSpec):
    """Each parses, and its settings are ones that the model's own config accepts."""
    schema = load_string(spec.config)
    for name in recipe_names(spec):
        settings = find_recipe(spec, name).settings
        if spec.prefix:
            settings = {spec.prefix_key: "resnet18", **settings}
        schema.parse(settings, owner=name)
