"""From what users type to objects: settings by owner, models by name, card or path."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import lonely, make_card, rewrite

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Provenance, Task
from glimpsezoo.zoo import names as resolve
from glimpsezoo.zoo.names import Assignments, build_model, choose_model, data_folder, data_spec, declared_settings
from glimpsezoo.zoo.plugins import LoadedPlugin, Registry, registry

DIGITS = Task((64, 64), 1, tuple("0123456789"))


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that alone is searched for cards."""
    return lonely(monkeypatch, tmp_path)


def test_settings_go_to_their_owners():
    sets = Assignments.parse(["a=1", "data.size=28", "mgnet.b=2", "timm:resnet18.c=x=y", "train.lr=1"], ["mgnet", "timm:resnet18"])
    assert (sets.of("data"), sets.of("train")) == ({"size": "28"}, {})
    assert sets.scoped == {"mgnet": {"b": "2"}, "timm:resnet18": {"c": "x=y"}}
    assert sets.shared == {"a": "1", "train.lr": "1"}


def test_a_longer_model_name_wins():
    sets = Assignments.parse(["mgnet.digits.a=1", "mgnet.a=2"], ["mgnet", "mgnet.digits"])
    assert sets.scoped == {"mgnet.digits": {"a": "1"}, "mgnet": {"a": "2"}}


def test_scopes_are_those_of_the_command():
    assert Assignments.parse(["train.lr=1"], [], scopes=("data", "train")).of("train") == {"lr": "1"}
    assert Assignments.parse(["data.size=1"], [], scopes=()).shared == {"data.size": "1"}


def test_the_last_of_two_values_and_the_nearest_owner_win():
    sets = Assignments.parse(["a=1", "a=2", "m.a=3", "n.a=4", "b=5"], ["m", "n"])
    assert sets.of_model(["other"], ["a"]) == {"a": "2"}
    assert sets.of_model(["m"], ["a", "b"]) == {"a": "3", "b": "5"}
    assert sets.of_model(["m", "n"], ["a"]) == {"a": "4"}
    assert sets.of_model(["m"], []) == {"a": "3"}  # its own reach it, known or not: its config then says which it knows


@pytest.mark.parametrize("text", ["a", "=1", ""])
def test_what_is_no_assignment_is_refused(text: str):
    with pytest.raises(GlimpseZooError, match=f"expects key=value, got '{text}'"):
        Assignments.parse([text], [])


def test_a_shared_key_must_be_known_to_some_model():
    sets = Assignments.parse(["glimpses=1"], [])
    sets.check_all_declared({"a": ["x"], "b": ["glimpses"]})
    with pytest.raises(
        GlimpseZooError, match=re.escape("--set glimpses expects a setting of a or b, or data.KEY for the data: known: x, y")
    ):
        sets.check_all_declared({"a": ["x"], "b": ["y"]})


def test_a_model_s_defaults_are_those_for_the_data():
    on_digits, elsewhere = (choose_model("mgnet", data, Assignments(), "none").settings.model_dump() for data in ("digits", "nowhere"))
    assert (on_digits["backbone"], on_digits["glimpses"]) == ("cnn4", 3)
    assert (elsewhere["backbone"], elsewhere["glimpses"]) == ("resnet18", 4)


def test_a_prefix_s_rest_is_a_setting():
    choice = choose_model("timm:resnet18", "digits", Assignments(), "none")
    assert (choice.full_name, choice.settings.model_dump()["architecture"]) == ("timm:resnet18", "resnet18")
    assert "architecture" in declared_settings("timm:resnet18")


def test_a_card_brings_its_own_settings(zoo: Path):
    make_card(zoo / "mgnet.digits", "mgnet", glimpses=2, policy="centre")
    choice = choose_model("mgnet", "digits", Assignments.parse(["glimpses=2", "policy=random"], []), None)
    assert choice.card is not None
    assert choice.settings.model_dump()["policy"] == "random"
    assert choice.changed == {"policy": "random"}  # the same value is no change
    untrained = choose_model("mgnet.digits", "digits", Assignments(), "none")
    assert untrained.card is None
    assert untrained.settings.model_dump()["policy"] == "centre"


def test_the_card_of_model_and_data_is_taken(zoo: Path):
    make_card(zoo / "cnn4.digits", seed=1)
    make_card(zoo / "cnn4.digits.other", seed=2)
    found = choose_model("cnn4", "digits", Assignments(), None).card
    assert found is not None
    assert found.name == "cnn4.digits"
    with pytest.raises(GlimpseZooError, match=r"card of 'cnn4' for 'mnist', got none \(it has cnn4.digits, cnn4.digits.other\)"):
        choose_model("cnn4", "mnist", Assignments(), None)
    make_card(zoo / "timm_test_resnet.digits", "timm:test_resnet")
    assert choose_model("timm:test_resnet", "digits", Assignments(), None).settings.model_dump()["architecture"] == "test_resnet"
    with pytest.raises(GlimpseZooError, match=r"for 'mnist', got none \(it has timm_test_resnet.digits\)"):
        choose_model("timm:test_resnet", "mnist", Assignments(), None)


def test_a_card_of_an_unknown_model_names_its_plugin_and_why(zoo: Path, monkeypatch: pytest.MonkeyPatch):
    rewrite(make_card(zoo / "x.digits"), model="x", plugin="glimpsezoo-x")
    with pytest.raises(GlimpseZooError, match="no installed plugin has: install its plugin, glimpsezoo-x"):
        choose_model("x.digits", "digits", Assignments(), None)
    sick = LoadedPlugin(Provenance("x", "glimpsezoo-x", "1.0"), error="cannot be imported: no torch")
    monkeypatch.setattr(resolve, "registry", lambda: Registry([*registry().plugins, sick]))
    with pytest.raises(GlimpseZooError, match="its plugin glimpsezoo-x is broken: cannot be imported: no torch"):
        choose_model("x.digits", "digits", Assignments(), None)
    with pytest.raises(GlimpseZooError, match=r"got 'xyz'.*\(broken: x; see 'glimpsezoo plugins'\)"):
        choose_model("xyz", "digits", Assignments(), "none")


def test_a_card_of_a_model_that_two_plugins_have_says_so(zoo: Path, monkeypatch: pytest.MonkeyPatch):
    make_card(zoo / "cnn4.digits")
    plugin = next(plugin for plugin in registry().plugins if plugin.provenance.plugin == "mgnet")
    twin = replace(plugin, specs=tuple(replace(spec, provenance=Provenance("twin", "twin", "1")) for spec in plugin.specs))
    monkeypatch.setattr(resolve, "registry", lambda: Registry([*registry().plugins, twin]))
    with pytest.raises(GlimpseZooError, match=r"'cnn4' is registered by glimpsezoo-mgnet .* and by twin 1: uninstall one"):
        choose_model("cnn4.digits", "digits", Assignments(), None)


def test_untrained_weights_follow_from_the_seed():
    choice = choose_model("cnn4", "digits", Assignments(), "none")
    first, again, other = (build_model(choice, DIGITS, seed=seed).state_dict()["head.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_card_s_model_has_the_card_s_normalisation_and_the_data_s_size(zoo: Path):
    card = make_card(zoo / "cnn4.digits")
    rewrite(card, task={**card.config.task.model_dump(mode="json"), "mean": [0.5], "std": [0.25]})
    model = build_model(choose_model("cnn4", "digits", Assignments(), None), replace(DIGITS, image_size=(32, 48)))
    assert (model.task.mean, model.task.std, model.task.image_size) == ((0.5,), (0.25,), (32, 48))
    assert not model.training


def test_classes_must_agree_in_name_and_order(zoo: Path):
    make_card(zoo / "cnn4.digits")
    choice = choose_model("cnn4", "digits", Assignments(), None)
    for classes in (DIGITS.classes[:9], DIGITS.classes[::-1]):
        with pytest.raises(GlimpseZooError, match=rf"its 10 classes .* got {len(classes)} \("):
            build_model(choice, replace(DIGITS, classes=classes))


def test_data_by_name_and_folder(tmp_path: Path):
    assert data_spec("digits").name == "digits"
    assert data_spec("folder:somewhere").name == "folder:"
    assert data_folder(None) is None
    assert data_folder(str(tmp_path)) == tmp_path
    with pytest.raises(GlimpseZooError, match="--data-dir expects a folder"):
        data_folder(str(tmp_path / "file"))
