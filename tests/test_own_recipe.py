"""Own data need no recipe: one is made for them from the training phases of the plugin, and it is a recipe like any other."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Answer
from data_files import picture, save

import glimpsezoo as gz
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import ModelSpec
from glimpsezoo.training.generic import generic_recipe
from glimpsezoo.training.prepare import prepare_training
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.training.target import Target
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.names import data_spec
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.recipes import Recipe, read_recipe, recipe_names, recipe_text

Say = Callable[..., Answer]
ONE_STEP = ("--set", "train.steps=1")  # of every phase
CHANGES = ("--set", "data.crop_area=0.5", "--batch-size", "4", "--lr", "0.01")
MODELS = ("mgnet", "ranzato", "pyramid-m3", "ram", "timm:resnet18", "cnn4")


def mixed_photos(folder: Path, classes: int = 2, per_class: int = 14) -> Path:
    """Pictures of mixed size, upright and wide, as JPEG."""
    for label in range(classes):
        for k in range(per_class):
            wide = picture(100 * label + k, 44 + 9 * (k % 5)).crop((0, 0, 44 + 9 * (k % 5), 42))
            save(wide.rotate(90 * (k % 2), expand=True), folder / f"class{label}" / f"{k}.jpg")
    return folder


@pytest.fixture
def photos(here: Path) -> Path:
    return mixed_photos(here / "photos")


def request(model: str, **options: Any) -> TrainingRequest:
    return TrainingRequest(model=model, data="folder:photos", device=torch.device("cpu"), sets=ONE_STEP[1:], **options)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("model", MODELS)
def test_every_kind_of_model_trains_on_a_folder_at_once_goes_on_after_a_stop_and_is_measured(say: Say, model: str):
    steps = prepare_training(request(model)).steps()
    next(steps)
    steps.close()
    answer = say("train", model, "--data", "folder:photos", *ONE_STEP)
    assert answer.status == 0, answer.err
    lines = [line for line in answer.err.splitlines() if line.startswith(f"no recipe of {model} is for folder:photos: ")]
    assert len(lines) == 1
    assert "22 training images of 2 classes: 40 x 40 px, batches of 8" in lines[0]
    assert "; resumes from its checkpoint" in answer.err.splitlines()[0]
    folder = answer.out.splitlines()[0].partition(" -> ")[2]
    config = Card.read(Path(folder)).config
    assert (config.task.image_size, config.data.settings["size"]) == ((40, 40), 40)
    assert len(config.trained["recipe"]["phase"]) >= 1
    measured = say("run", folder)
    assert measured.status == 0, measured.err
    assert "40 x 40 px" in measured.out


@pytest.mark.usefixtures("photos")
def test_the_printed_recipe_is_taken_back_and_trains_the_same_weights(say: Say, here: Path):
    words = ("train", "ranzato", "--data", "folder:photos", "--set", "hidden=20", *CHANGES)
    printed = say(*words, *ONE_STEP, "--print-recipe")
    assert (printed.status, printed.err) == (0, "")
    assert not (here / "runs").exists()  # nothing was trained
    found = tomllib.loads(printed.out)
    assert (found["batch_size"], found["settings"]["hidden"], found["data"]["crop_area"]) == (4, 20, 0.5)
    assert [(phase["steps"], phase["lr"]) for phase in found["phase"]] == [(1, 0.01)] * 3
    (here / "mine.toml").write_text(printed.out)
    assert say(*words, *ONE_STEP, "-o", "first").status == 0
    again = say("train", "ranzato", "--data", "folder:photos", "--recipe", "mine.toml", "-o", "second")
    assert again.status == 0, again.err
    assert "no recipe of" not in again.err
    first, second = (Card.read(here / name).config for name in ("first", "second"))
    assert first.weights == second.weights
    assert first.trained["recipe"]["phase"] == second.trained["recipe"]["phase"]


def test_classes_too_small_to_calibrate_with_are_told_the_rule(say: Say, here: Path):
    mixed_photos(here / "few", per_class=9)
    answer = say("train", "cnn4", "--data", "folder:few")
    assert answer.status == 2
    assert "got 16 and 0 (calibration from every 10th of the others of each class): add images" in answer.err


def test_a_shipped_recipe_is_printed_too_and_an_option_reaches_it(say: Say):
    found = tomllib.loads(say("train", "ranzato", "--data", "digits", "--epochs", "29", "--lr", "0.02", "--print-recipe").out)
    assert [(phase["epochs"], phase["lr"]) for phase in found["phase"]] == [(17, 0.02), (9, 0.02), (3, 0.02)]  # of 180, 90 and 20 epochs
    answer = say("train", "cnn4", "--epochs", "3", "--set", "train.epochs=4", "--print-recipe")
    assert (answer.status, "either --epochs or --set train.epochs" in answer.err) == (2, True)
    answer = say("train", "ranzato", "--epochs", "2", "--print-recipe")
    assert (answer.status, "each of the 3 training phases of the recipe, got 2" in answer.err) == (2, True)


def test_phases_keep_their_proportions():
    phases = [{"name": name, "epochs": epochs, "optimiser": "sgd", "lr": lr} for name, epochs, lr in (("a", 90, 0.1), ("b", 10, 0.01))]
    recipe = Recipe.parse({"batch_size": 8, "phase": phases}, owner="x")
    changed = recipe.scaled(epochs=12, lr=0.5)
    assert [(phase.epochs, phase.lr) for phase in changed.phase] == [(10, 0.5), (2, 0.05)]
    assert sum(phase.epochs or 0 for phase in recipe.scaled(epochs=3).phase) == 3
    assert recipe.scaled() == recipe
    mixed = Recipe.parse({"batch_size": 8, "phase": [phases[0], {**phases[1], "epochs": None, "steps": 5}]}, owner="x")
    with pytest.raises(GlimpseZooError, match="all phases in epochs or all in steps"):
        mixed.scaled(epochs=10)


def test_the_text_of_every_shipped_recipe_is_read_back_as_the_same():
    recipes = [read_recipe(spec, name) for spec in registry().all(ModelSpec) for name in recipe_names(spec)]
    assert len(recipes) > 50
    for recipe in recipes:
        again = Recipe.from_toml(recipe.to_toml(), name="x")
        assert again == recipe
        assert [phase.model_fields_set for phase in again.phase] == [phase.model_fields_set for phase in recipe.phase]


def generic(model: str, **settings: Any) -> Recipe:
    spec = registry().find(ModelSpec, model)
    from glimpsezoo.data.loading import open_data

    data = open_data(data_spec("folder:photos"), "folder:photos", "train", settings)
    return generic_recipe(Target(spec, f"{model}.folder:photos", model, "folder:photos"), data, settings).recipe


def test_it_is_fitted_to_the_data(here: Path):
    mixed_photos(here / "photos", classes=30, per_class=6)
    recipe = generic("cnn4")
    assert (recipe.batch_size, recipe.data["size"]) == (32, 40)  # an image of every class
    assert sum(phase.epochs or 0 for phase in recipe.phase) == 100
    assert generic("cnn4", size=96).data == {"crop_area": 0.35, "colours": "distort"}
    assert generic("mgnet", size=224).settings["glimpses"] == 4  # as for ImageNet
    grey = generic("mgnet", channels=1, size=64)
    assert (grey.settings["backbone"], grey.settings["glimpses"]) == ("cnn4", 3)  # as for the digits
    assert generic("gfnet", size=64).settings["backbone"] == "test_resnet"  # the default for the digits belongs to their recipe


def test_images_are_not_enlarged_and_many_are_larger(here: Path, monkeypatch: pytest.MonkeyPatch):
    for label in ("a", "b"):
        for k in range(10):
            save(picture(k, 47), here / "photos" / label / f"{k}.png")
    assert generic("cnn4").data["size"] == 44
    mixed_photos(here / "photos", per_class=15)
    monkeypatch.setattr("glimpsezoo.training.generic.SIDES", ((10, 16), (1000, 32)))
    monkeypatch.setattr("glimpsezoo.training.generic.MANY", 2)
    monkeypatch.setattr("glimpsezoo.training.generic.STEPS", 200)
    recipe = generic("cnn4")
    assert recipe.data == {"size": 32}
    assert sum(phase.epochs or 0 for phase in recipe.phase) == 40  # 200 steps of 5 per epoch


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("name", [spec.name for spec in registry().all(ModelSpec) if spec.training_step])
def test_every_model_that_can_train_has_one(name: str):
    model = "timm:resnet18" if name == "timm:" else name
    size = 100 if model == "adaptivenn" else 64  # the nearest recipe of adaptivenn has patches of 112 px
    recipe = generic(model, size=size)
    gz.create_model(model, task=gz.Task((size, size), 3, ("a", "b")), **recipe.settings)  # can be built
    assert recipe.start is None
    assert not any(phase.adversarial or phase.augmix for phase in recipe.phase)


def test_a_model_without_recipes_gets_one_phase(here: Path, monkeypatch: pytest.MonkeyPatch):
    mixed_photos(here / "photos")
    monkeypatch.setattr("glimpsezoo.training.generic.recipe_names", lambda spec: [])
    (phase,) = generic("cnn4").phase
    assert (phase.name, phase.optimiser, phase.epochs) == ("main", "adamw", 100)


def test_data_with_variants_of_recipes_still_ask_which(say: Say):
    answer = say("train", "pyramid-m3", "--data", "plain-mnist", "--print-recipe")
    assert (answer.status, "did you mean 'pyramid-m3.plain-mnist." in answer.err) == (2, True)


def test_a_recipe_is_shown_as_a_file_that_trains(say: Say, here: Path):
    answer = say("show", "recipe", "mgnet.digits")
    assert answer.status == 0
    assert answer.out == recipe_text(registry().find(ModelSpec, "mgnet"), "mgnet.digits")
    (here / "mine.toml").write_text(answer.out)
    assert say("train", "mgnet", "--recipe", "mine.toml", "--print-recipe").status == 0
    assert say("show", "recipe", "timm:resnet18.digits", "--json").json["batch_size"] == 32
    assert "got 'mgnet.digit': did you mean 'mgnet.digits'" in say("show", "recipe", "mgnet.digit").err
    assert say("show", "recipe").status == say("show", "a", "b").status == 2
