"""Data with some of a model's classes: labels count among all of them, in every command, and that is said."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from command_line import Answer, photo_card, photos
from data_files import encoded, flat, opened, write_parquet

import glimpsezoo as gz
from glimpsezoo.data.among import AmongClasses, among
from glimpsezoo.data.limited import limited
from glimpsezoo.errors import GlimpseZooError

MANY = "bird dark fish light"


@pytest.fixture
def card(here: Path) -> Path:
    """A card of four classes, and photographs of two of them."""
    photos(here / "photos", per_class=25)
    return photo_card(here / "zoo_cards" / "card", classes=MANY).folder


def test_labels_are_numbers_of_the_models_classes(card: Path):
    data = gz.open_data("folder:photos", size=32)
    seen = among(data, tuple(MANY.split()))
    names = [seen.task.classes[label] for label in seen.labels().tolist()]
    assert names == [data.task.classes[label] for label in data.labels().tolist()]
    assert [seen[k].label for k in range(len(seen))] == seen.labels().tolist()
    assert [each.label for each in seen.examples_at([0, len(seen) - 1]) if isinstance(each, gz.Example)] == [1, 3]
    assert torch.equal(seen[0].image, data[0].image)
    assert seen.info.fingerprint != data.info.fingerprint


def test_a_label_out_of_range_stays_a_wrong_one(tmp_path: Path):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(flat(50))] * 6, [0, 1, 0, 1, 0, -1], ["dark", "light"])
        table = pq.read_table(tmp_path / f"{split}.parquet")
        table = table.set_column(1, table.schema.field(1), [pa.array([0, 1, 7, 1, 0, None])])
        pq.write_table(table, tmp_path / f"{split}.parquet")
    data = opened("hf:me/set", "test", tmp_path, size=16)
    seen = among(data, ("bird", "dark", "light"))
    assert seen.labels().tolist() == [1, 2, 3, 2, 1, -1]
    assert len(limited(seen, 4)) == 4
    bad = list(seen.examples(2, 3))
    assert [str(each) for each in bad] == [str(each) for each in data.examples(2, 3)]
    assert "expected a label in 0..1, got 7" in str(bad[0])


def test_other_classes_stay_as_they_are(card: Path):
    data = gz.open_data("folder:photos", size=32)
    for classes in (None, data.task.classes, ("bird", "fish"), ("dark", "fish")):
        assert among(data, classes) is data


def test_run_predicts_among_all_classes_and_says_so(card: Path, say: Callable[..., Answer]):
    answer = say("run", "card", "--data", "folder:photos", "--measure", "accuracy", "--json")
    assert answer.status == 0, answer.err
    assert "folder:photos has 2 of the 4 classes: predictions are among all of them" in answer.err
    (result,) = json.loads(answer.out)["results"]
    found = gz.evaluate(gz.load("card"), "folder:photos")
    assert found.accuracy.top1.value == result["accuracy"]["top1"]["value"]
    data = AmongClasses(gz.open_data("folder:photos", size=32), tuple(MANY.split()))
    right = [gz.load("card").predict(data[k].image)[0].index == data[k].label for k in range(len(data))]
    assert result["accuracy"]["top1"]["value"] == pytest.approx(sum(right) / len(right))


def test_the_same_classes_in_another_order_are_mapped_by_name_and_that_is_said(card: Path, say: Callable[..., Answer]):
    turned = photo_card(card.parent / "turned", classes="light dark").folder
    answer = say("run", turned, "--data", "folder:photos", "--measure", "accuracy", "--json")
    assert answer.status == 0, answer.err
    assert "folder:photos has the classes in another order: its labels are mapped by name" in answer.err
    assert "predictions are among all" not in answer.err
    data = gz.open_data("folder:photos", size=32)
    right = [gz.load(str(turned)).predict(data[k].image)[0].label == data.task.classes[data[k].label] for k in range(len(data))]
    assert answer.json["results"][0]["accuracy"]["top1"]["value"] == pytest.approx(sum(right) / len(right))


def test_trace_and_check_take_them_too(card: Path, say: Callable[..., Answer]):
    assert "label dark" in say("trace", "card", "--data", "folder:photos", "-o", "t.svg").out
    assert say("check", "card", "--data", "folder:photos").status == 0


def test_a_report_shows_them(card: Path, say: Callable[..., Answer]):
    assert say("run", "card", "--data", "folder:photos", "--measure", "accuracy", "-o", "run").status == 0
    answer = say("report", "run", "-o", "page.html", "--traces", "1")
    assert (answer.status, "not shown looking" in answer.err) == (0, False)
    assert "not shown looking" not in Path("page.html").read_text()


def test_a_class_that_the_model_does_not_have_is_refused(card: Path, say: Callable[..., Answer]):
    (card.parent.parent / "photos" / "cat").mkdir()
    for number in range(5):
        (card.parent.parent / "photos" / "cat" / f"{number}.png").write_bytes((card.parent.parent / "photos/dark/0.png").read_bytes())
    answer = say("run", "card", "--data", "folder:photos")
    assert (answer.status, "4 classes" in answer.err) == (2, True)
    with pytest.raises(GlimpseZooError, match="4 classes"):
        gz.evaluate(gz.load("card"), "folder:photos")


def test_a_limit_leaves_out_images_and_not_classes(card: Path, say: Callable[..., Answer]):
    own = photo_card(card.parent / "own").folder
    assert "predictions are among all" not in say("run", own, "--measure", "accuracy", "--limit", "1", "--data", "folder:photos").err
    few = say("run", "card", "--data", "folder:photos", "--measure", "accuracy", "--limit", "1")
    assert "has 2 of the 4 classes" in few.err
