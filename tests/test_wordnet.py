"""WordNet ids are shown with their English names; files and records keep the ids."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer, make_card
from data_files import picture, save

import glimpsezoo as gz
from glimpsezoo.data.wordnet import IMAGENET, IMAGENET100_CMC, TINY_IMAGENET, english, titled
from glimpsezoo.errors import GlimpseZooError

Say = Callable[..., Answer]
FISH = ("n01440764", "n01443537")


@pytest.fixture
def fish(here: Path) -> Path:
    for label in FISH:
        for k in range(12):
            save(picture(k, 40), here / "fish" / label / f"{k}.png")
    return here / "fish"


def test_every_class_of_imagenet_and_its_subsets_has_a_name_of_its_own():
    names = [english(label) for label in IMAGENET]
    assert len(set(names)) == 1000
    assert not set(names) & set(IMAGENET)
    assert {english(label) for label in (*TINY_IMAGENET, *IMAGENET100_CMC)} < set(names)
    assert (english("n01440764"), english("n02012849"), english("n03126707")) == ("tench", "crane (bird)", "crane (machine)")
    assert (titled("n01440764"), titled("tench"), english("n99999999")) == ("tench (n01440764)", "tench", "n99999999")


@pytest.mark.usefixtures("fish")
def test_commands_show_names_and_records_keep_ids(say: Say, here: Path):
    task = gz.Task((32, 32), 3, FISH)
    make_card(here / "zoo_cards" / "cnn4.fish", data="folder:fish", task=task, data_settings={"size": 32})
    run = say("run", "cnn4.fish", "-o", "r")
    assert "folder:fish: 2 classes (tench, goldfish);" in run.err
    assert json.loads((here / "r/cnn4.fish/result.json").read_text())["data"]["inferred"]["classes"] == list(FISH)
    shown = " ".join(say("show", "folder:fish").out.split())
    assert "2: tench (n01440764), goldfish (n01443537)" in shown
    assert "tench (n01440764): train=9, calibration=1, test=2" in shown
    assert say("show", "folder:fish", "--json").json["classes"] == list(FISH)
    assert "2: tench (n01440764), goldfish (n01443537)" in say("show", "cnn4.fish").out
    assert say("trace", "cnn4.fish", "--index", "0", "-o", "t.svg").status == 0
    picture_text = Path("t.svg").read_text()
    assert "tench" in picture_text
    assert FISH[0] not in picture_text
    assert say("report", "r", "--traces", "1", "-o", "r.html").status == 0
    page = Path("r.html").read_text()
    assert "tench" in page


def test_the_catalogue_lists_names(say: Say):
    shown = " ".join(say("show", "tiny-imagenet").out.split())
    assert "200: goldfish (n01443537), European fire salamander (n01629819)" in shown


@pytest.mark.usefixtures("fish")
def test_errors_say_both(here: Path, say: Say):
    make_card(here / "zoo_cards" / "other", task=gz.Task((32, 32), 3, ("n01440764", "n02012849")), data="folder:fish")
    answer = say("run", "other", "--data", "folder:fish")
    assert "2 classes (tench (n01440764), crane (bird) (n02012849)), got 2 (tench (n01440764), goldfish (n01443537))" in answer.err
    (here / "fish" / "n02012849").mkdir()
    with pytest.raises(GlimpseZooError, match=r"got none of 1 \('crane \(bird\) \(n02012849\)'\)"):
        gz.evaluate(gz.create_model("cnn4", task=gz.Task((32, 32), 3, (*FISH, "n02012849"))), "folder:fish")
