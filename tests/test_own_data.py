"""A card knows its data: they are what it is measured on, and whatever else it is measured on is said where the numbers stand."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import RECIPE, Answer, make_card, photo_card, photos, rewrite
from data_files import opened
from PIL import Image

import glimpsezoo as gz
from glimpsezoo.conditions.attacks.settings import PGDSettings
from glimpsezoo.data.pixels import MOST
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.settings import settings_of
from glimpsezoo.specs import Task
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.own_data import choose_data
from glimpsezoo.zoo.results import read_result, result_type

Say = Callable[..., Answer]
FEW = ("--limit", "10", "--measure", "accuracy,flops")


@pytest.fixture
def cards(here: Path) -> Path:
    """Cards of two data sets, and of one in two sizes; the pictures lie in ./photos."""
    photos(here / "photos")
    make_card(here / "zoo_cards" / "cnn4.digits")
    photo_card(here / "zoo_cards" / "small", size=32)
    photo_card(here / "zoo_cards" / "large", size=48)
    return here / "zoo_cards"


def only(answer: Answer) -> dict[str, Any]:
    assert answer.status == 0, answer.err
    return answer.json["results"][0]


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize("name", ["small", "zoo_cards/small"])
def test_a_card_is_measured_on_its_own_data_in_their_size(say: Say, name: str):
    for words in ((), ("--data", "folder:photos")):
        found = only(say("run", name, *words, *FEW, "--json"))
        assert (found["data"]["name"], found["data"]["image_size"], found["data"]["settings"]) == ("folder:photos", [32, 32], {"size": 32})
        assert found["model"]["trained_on"] == {
            "data": "folder:photos",
            "settings": {"size": 32},
            "image_size": [32, 32],
            "recipe": None,
            "seed": None,
        }
        assert result_type().model_validate(found).departure == ""
    plain = say("run", name, *FEW)
    assert " on folder:photos test: 10 images per model" in plain.err.splitlines()[0]
    assert "trained" not in plain.out + plain.err


@pytest.mark.usefixtures("cards")
def test_a_model_without_a_card_is_measured_on_digits_or_on_the_data_of_the_cards_beside_it(say: Say):
    assert only(say("run", "cnn4", *FEW, "--json"))["data"]["name"] == "digits"
    assert only(say("run", "cnn4", "--checkpoint", "none", *FEW, "--json"))["data"]["name"] == "digits"
    assert only(say("run", "cnn4", "--checkpoint", "small", *FEW, "--json"))["data"]["image_size"] == [32, 32]
    assert only(say("run", "small", "--checkpoint", "none", *FEW, "--json"))["data"]["image_size"] == [32, 32]
    beside = say("run", "small", "mgnet", "--checkpoint", "none", "--set", "backbone=cnn4", *FEW, "--json").json["results"]
    assert [each["data"]["name"] for each in beside] == ["folder:photos"] * 2


@pytest.mark.usefixtures("cards")
def test_cards_that_do_not_agree_are_told_apart_before_anything_is_measured(say: Say, here: Path):
    answer = say("run", "cnn4.digits", "small", *FEW)
    assert answer.status == 2
    assert answer.err == (
        "glimpsezoo: expected cards that were trained on the same data, got cnn4.digits on digits, small on folder:photos: "
        "run them one by one\n"
    )
    photo_card(here / "zoo_cards" / "other", data="folder:others")
    answer = say("run", "small", "other", *FEW)  # these are for images of the same kind
    assert "got small on folder:photos, other on folder:others: name one by --data folder:photos, or run them one by one" in answer.err
    assert say("run", "small", "other", "--data", "folder:photos", *FEW).status == 0
    for words in (("small", "large"), ("small", "large", "--data", "folder:photos")):
        answer = say("run", *words, *FEW)
        assert (answer.status, answer.err.count("\n")) == (2, 1)
        assert "got small with data.size=32, large with data.size=48: choose one by --set data.size=32, or run" in answer.err
    both = say("run", "small", "large", "--set", "data.size=32", *FEW, "--json").json["results"]
    assert [each["data"]["image_size"] for each in both] == [[32, 32], [32, 32]]
    assert [bool(result_type().model_validate(each).departure) for each in both] == [False, True]


@pytest.mark.usefixtures("cards")
def test_another_size_is_a_choice_that_the_first_line_the_table_and_the_result_say(say: Say):
    answer = say("run", "small", "--set", "data.size=64", *FEW)
    sentence = "small was trained on folder:photos at 32 x 32 px, measured at 64 x 64 px, a size that it was never trained at"
    first, warning = answer.err.splitlines()[:2]
    assert sentence in first
    assert warning.startswith("warning: small was never trained at 64 x 64 px")
    assert answer.out.splitlines()[1].startswith("small (trained at 32 px)")
    assert f"{sentence}." in " ".join(answer.out.split())
    (path,) = Path("runs").glob("*/small/result.json")
    assert read_result(path.read_bytes()).departure == sentence
    shown = say("compare", str(path.parent))
    assert sentence in " ".join(shown.out.split())
    assert "small (trained at 32 px)" in say("compare", str(path.parent), "--format", "csv").out


def test_other_data_are_said_and_come_in_the_size_that_the_card_was_trained_at(say: Say, cards: Path, here: Path):
    photos(here / "others")
    answer = say("run", "small", "--data", "folder:others", *FEW)
    assert answer.status == 0, answer.err
    assert "; small was trained on folder:photos, measured on folder:others" in answer.err.splitlines()[0]
    assert "never" not in answer.err
    assert re.search(r"^small \(trained on folder:.*^photos\)", answer.out, re.DOTALL | re.MULTILINE)  # folded
    assert "10 images (Wilson intervals), 32 x 32 px" in " ".join(answer.out.split())
    assert "card 'small' expects images with 3 channel(s), got data with 1:" in say("run", "small", "--data", "digits", *FEW).err


@pytest.mark.usefixtures("cards")
def test_a_card_of_grey_images_gets_others_in_grey_and_goes_beside_no_card_of_colours(say: Say, here: Path):
    photos(here / "others")
    task = Task((32, 32), 1, ("dark", "light"))
    make_card(here / "zoo_cards" / "grey", data="folder:photos", task=task, data_settings={"size": 32, "channels": 1})
    found = only(say("run", "grey", "--data", "folder:others", *FEW, "--json"))
    assert found["data"]["settings"] == {"size": 32, "channels": 1}
    for words in (("grey", "small"), ("grey", "large"), ("grey", "small", "--set", "data.channels=1")):
        answer = say("run", *words, *FEW)
        assert (answer.status, answer.err.count("\n")) == (2, 1)
        assert "--set" not in answer.err  # no setting fits both
    answer = say("run", "grey", "large", *FEW)
    assert (
        "trained on folder:photos with the same settings, got grey with data.size=32, large with data.size=48: run them one by"
        in answer.err
    )


def test_settings_of_other_images_are_said_too(say: Say, here: Path):
    make_card(here / "zoo_cards" / "placed", data="digits", data_settings={"seed": 3})
    assert only(say("run", "placed", *FEW, "--json"))["data"]["settings"] == {"seed": 3}
    answer = say("run", "placed", "--set", "data.seed=4", *FEW)
    assert "placed was trained on digits, measured with data.seed=4" in answer.err.splitlines()[0]
    assert answer.out.splitlines()[1].startswith("placed (other data settings) ")


def test_augmentation_is_no_setting_of_the_images_that_are_measured(here: Path):
    make_card(here / "zoo_cards" / "turned", data="digits", task=gz.Task((28, 28), 1, tuple("0123456789")))
    rewrite(Card.read(here / "zoo_cards" / "turned"), data={"name": "mnist", "settings": {"rotation": 12.0, "streaming": True}})
    chosen = choose_data(["turned"], None, {})
    assert (chosen.name, chosen.settings, chosen.recorded) == ("mnist", {"streaming": True}, {})
    assert choose_data(["turned"], "plain-mnist", {}).settings == {"size": 28}
    assert choose_data(["turned"], "plain-mnist", {"size": "14"}).settings == {"size": "14"}
    assert choose_data(["turned"], "hf:some/body@main", {}).settings == {"size": 28, "channels": 1}


def test_a_card_that_does_not_know_its_data_asks_for_them(say: Say, cards: Path):
    rewrite(Card.read(cards / "small"), data={"name": "unknown", "settings": {}})
    answer = say("run", "small", *FEW)
    assert answer.status == 2
    assert answer.err == "glimpsezoo: card 'small' does not say which data it was trained on: name data by --data\n"
    assert only(say("run", "small", "--data", "folder:photos", *FEW, "--json"))["model"]["trained_on"] is None


@pytest.mark.usefixtures("cards")
def test_trace_and_check_take_the_card_s_data(say: Say, here: Path):
    answer = say("trace", "small", "-o", "own.png")
    assert answer.status == 0, answer.err
    assert "folder:photos test 0" in answer.out
    assert "trained" not in answer.err
    photos(here / "others")
    other = say("trace", "small", "--data", "folder:others", "--set", "data.size=40", "-o", "other.png")
    assert "small was trained on folder:photos at 32 x 32 px, measured on folder:others at 40 x 40 px" in other.err
    assert say("check", "small", "--data", "folder:photos").status == 0


@pytest.mark.usefixtures("cards")
def test_a_report_shows_the_images_that_were_measured_and_says_what_they_were(say: Say):
    assert say("run", "small", "--set", "data.size=64", *FEW, "-o", "r").status == 0
    answer = say("report", "r", "--traces", "1", "-o", "r.html")
    sentence = "small was trained on folder:photos at 32 x 32 px, measured at 64 x 64 px, a size that it was never trained at"
    assert (answer.status, answer.err) == (0, "")  # it is shown looking
    assert sentence in Path("r.html").read_text()


def test_in_python_a_model_is_evaluated_on_its_card_s_data(cards: Path):
    model = gz.load("small")
    found = gz.evaluate(model, limit=10)
    assert (found.accuracy.top1.n, found.departure) == (10, "")
    assert (
        gz.evaluate(gz.load("cnn4.digits"), limit=10).rows.group.tolist()
        == gz.evaluate(gz.load("cnn4"), "digits", limit=10).rows.group.tolist()
    )
    photos(Path("others"))
    assert gz.evaluate(model, "folder:others", limit=10).departure == "small was trained on folder:photos, measured on folder:others"
    rewrite(Card.read(cards / "small"), data={"name": "unknown", "settings": {}})
    with pytest.raises(GlimpseZooError, match="does not say which data it was trained on"):
        gz.evaluate(gz.load("small"))


def test_a_training_goes_on_from_the_card_that_the_user_names_on_its_data_and_with_its_settings(say: Say, here: Path):
    photos(here / "photos")
    photo_card(here / "start", size=24)
    (here / "r.toml").write_text(RECIPE.replace("epochs = 2", "steps = 1"))
    answer = say("train", "cnn4", "--recipe", "r.toml", "--set", "train.start=start", "-o", "on")
    assert answer.status == 0, answer.err
    config = Card.read(here / "on").config
    assert (config.name, config.data.name, config.data.settings) == ("cnn4.folder:photos", "folder:photos", {"size": 24})
    assert config.task.image_size == (24, 24)
    make_card(here / "mg", "mgnet", glimpses=2, policy="centre")
    answer = say("train", "mgnet", "--recipe", "r.toml", "--set", "train.start=mg", "--set", "policy=random", "-o", "mg2")
    assert answer.status == 0, answer.err
    assert {key: Card.read(here / "mg2").config.config[key] for key in ("glimpses", "policy")} == {"glimpses": 2, "policy": "random"}


def test_the_measure_it_line_measures_it_and_the_card_says_nothing_of_the_machine(say: Say, here: Path):
    """FAULTS F20 and N6: what was typed works here, and what is published has names alone."""
    photos(here / "far" / "coin")
    (here / "r.toml").write_text(RECIPE.replace("epochs = 2", "steps = 1"))
    words = ("--set", "data.size=32", "--recipe", str(here / "r.toml"))
    for number, data in enumerate((("--data", f"folder:{here}/far/coin"), ("--data", "folder:coin", "--data-dir", f"{here}/far"))):
        folder = here / f"card{number}"
        answer = say("train", "cnn4", *data, *words, "-o", str(folder))
        assert answer.status == 0, answer.err
        line = answer.out.splitlines()[-1].removeprefix("measure it: glimpsezoo ")
        measured = say(*line.split(), "--update-card", "--measure", "accuracy")
        assert measured.status == 0, measured.err
        assert "trained" not in measured.out + measured.err
        assert sorted(path.name for path in folder.iterdir() if path.suffix in {".json", ".md"}) == [
            "README.md",
            "config.json",
            "result.json",
        ]
        for path in folder.iterdir():
            assert str(here).encode() not in path.read_bytes(), path.name
        config = Card.read(folder).config
        assert (config.name, config.data.name) == ("cnn4.folder:coin", "folder:coin")
        assert "--recipe r.toml -o card" in config.trained["command"]
        assert f"glimpsezoo run card{number} --data folder:coin\n" in (folder / "README.md").read_text()
    assert f"--data-dir {here}/far" in line


def test_the_printed_default_of_evaluations_is_not_one_number_for_all_models():
    """FAULTS N8: a stochastic model is judged over five, and what is printed says so."""
    (found,) = (setting for setting in settings_of(PGDSettings)[1] if setting.key == "evaluations")
    assert found.default is None
    assert "5 times for a stochastic model" in found.meaning
    reference = (Path(__file__).parent.parent / "docs" / "reference" / "attacks.md").read_text()
    rows = re.findall(r"\| `(?:\w+\.)?evaluations` \|[^|]*\|([^|]*)\|", reference)
    assert rows
    assert {row.strip() for row in rows} == {"`none`"}


def test_the_record_of_an_older_result_says_nothing_of_its_training():
    stored = json.loads((Path(__file__).parent.parent / "zoo_cards" / "cnn4.digits" / "result.json").read_text())
    stored["model"].pop("trained_on", None)
    stored["data"].pop("settings", None)
    assert result_type().model_validate(stored).departure == ""


def test_a_folder_that_changed_since_the_training_is_a_warning(say: Say, here: Path):
    """One more file moves others between the splits of a folder without split folders."""
    folder = photos(here / "photos")
    assert say("train", "cnn4", "--data", "folder:photos", "--set", "data.size=32", "--epochs", "2", "-o", "mine").status == 0
    words = ("run", "mine", "--measure", "accuracy")
    assert "has changed" not in say(*words).err
    shutil.copy(folder / "dark" / "3.png", folder / "dark" / "0a.png")
    assert "warning: folder:photos has changed since mine was trained on it" in say(*words).err


def test_a_training_that_took_no_step_does_not_stand_in_the_way(say: Say, here: Path):
    folder = photos(here / "photos")
    for number in range(25):
        (folder / "light" / f"{number}x.png").write_bytes(b"broken")
    words = ("train", "cnn4", "--data", "folder:photos", "--set", "data.size=32", "--epochs", "2", "-o", "mine")
    assert say(*words).status == 2
    for path in (folder / "light").glob("*x.png"):
        path.unlink()
    assert say(*words).status == 0


def test_the_plain_name_of_a_folder_is_answered_with_the_name_to_type(say: Say, here: Path):
    photos(here / "photos")
    assert "did you mean 'folder:photos'?" in say("train", "cnn4", "--data", "photos").err


def test_thresholds_leave_out_only_what_they_are_asked_to_and_say_so(say: Say, here: Path):
    folder = photos(here / "photos")
    calibration = opened(f"folder:{folder}", "calibration", size=16)
    calibration.source.images.files[calibration.source.chosen[0]].write_bytes(b"no image")
    words = ("run", "ranzato", "--checkpoint", "none", "--data", "folder:photos", "--set", "data.size=16", "--measure", "anytime", "--json")
    assert say(*words).status == 2
    notes = only(say(*words, "--on-bad-image", "skip"))["notes"]
    assert any("thresholds of exits without 1 calibration image that cannot be read" in note for note in notes)
    refused = say(*words)  # though the thresholds without that image are known by now
    assert (refused.status, "expected an image" in refused.err) == (2, True)


def test_what_was_too_large_is_measured_when_the_limit_is_raised(say: Say, here: Path, monkeypatch: pytest.MonkeyPatch):
    folder = photos(here / "photos")
    large = opened(f"folder:{folder}", "test", size=16)
    Image.new("L", (90, 90)).save(large.source.images.files[large.source.chosen[0]])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    words = ("run", "cnn4", "--checkpoint", "none", "--data", "folder:photos", "--set", "data.size=16", "--measure", "accuracy")
    for most, skipped in ((5_000, 1), (50_000, 0)):
        monkeypatch.setenv(MOST, str(most))
        assert only(say(*words, "--on-bad-image", "skip", "--json"))["data"]["skipped"] == skipped


def test_thresholds_that_are_chosen_on_the_measured_images_say_so(say: Say, here: Path):
    photos(here / "photos")
    words = ("run", "ranzato", "--checkpoint", "none", "--data", "folder:photos", "--set", "data.size=16", "--measure", "anytime", "--json")
    chosen = "chosen on the images that are measured"
    assert chosen in str(only(say(*words, "--split", "calibration"))["notes"])
    assert chosen not in str(only(say(*words))["notes"])
