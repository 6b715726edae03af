"""`glimpsezoo predict`: files and folders in, a table, CSV or a line of JSON per image out."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Answer, ask, photo_card, photos
from PIL import Image

import glimpsezoo as gz
from glimpsezoo.measures.flops import flops_of

Say = Callable[..., Answer]


@pytest.fixture
def card(here: Path) -> Path:
    """A card called `card`, and `photos/` with three images of each class."""
    photos(here / "photos", per_class=3)
    return photo_card(here / "zoo_cards" / "card").folder


def lines(answer: Answer) -> list[dict[str, object]]:
    return [json.loads(line) for line in answer.out.splitlines()]


def test_a_folder_and_files_give_a_line_of_json_per_image(card: Path, say: Say):
    answer = say("predict", "card", "photos", "photos/dark/0.png", "--json", "--top", "1")
    assert answer.status == 0, answer.err
    found = lines(answer)
    inside = sorted(str(path) for path in Path("photos").rglob("*.png"))
    assert [each["image"] for each in found] == [*inside, "photos/dark/0.png"]
    (own,) = gz.load("card").predict("photos/dark/0.png", top=1)
    assert found[-1] == {"image": "photos/dark/0.png", **own.to_json()} == found[0]


def test_the_size_that_is_asked_for_is_that_of_the_pixels(card: Path, say: Say):
    for size, given in ((32, ()), (48, ("--set", "data.size=48"))):
        (found,) = lines(say("predict", "card", "photos/dark/0.png", "--json", *given))
        assert found["macs"] == flops_of(gz.create_model("cnn4", task=gz.Task((size, size), 3, ("dark", "light")))).macs.mean


def test_of_a_folder_those_images_are_taken_that_a_class_folder_would_have(card: Path, say: Say):
    (Path("photos/light/.thumbnails")).mkdir()
    for hidden in ("photos/dark/._0.png", "photos/light/.thumbnails/0.png"):
        Path(hidden).write_bytes(Path("photos/dark/0.png").read_bytes())
    Path("photos").rename("elsewhere")
    Path("photos").mkdir()
    Path("photos/linked").symlink_to(Path("elsewhere").absolute())
    answer = say("predict", "card", "photos", "--json")
    assert answer.status == 0, answer.err
    assert [each["image"] for each in lines(answer)] == [f"photos/linked/{name}/{k}.png" for name in ("dark", "light") for k in range(3)]


def test_csv_has_a_column_for_every_class_that_is_named(card: Path, say: Say):
    rows = list(csv.DictReader(io.StringIO(say("predict", "card", "photos", "--csv").out)))
    assert len(rows) == 6
    assert {row["prediction"] for row in rows} | {row["prediction 2"] for row in rows} == {"dark", "light"}
    assert all(float(row["%"]) + float(row["% 2"]) == pytest.approx(100) for row in rows)


def test_a_class_name_is_no_formula_in_csv(here: Path, say: Say):
    photos(here / "photos", per_class=1)
    photo_card(here / "zoo_cards" / "card", classes="=1+1 @x")
    rows = list(csv.DictReader(io.StringIO(say("predict", "card", "photos", "--csv").out)))
    assert {row["prediction"] for row in rows} <= {"'=1+1", "'@x"}


def test_the_table_names_images_and_classes(card: Path, say: Say):
    answer = say("predict", "card", "photos/light")
    assert "photos/light/0.png" in answer.out
    assert answer.out.count("1 of 1") == 3


def test_names_come_from_standard_input(card: Path, say: Say, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("photos/dark/0.png\n\nphotos/light/1.png\n"))
    assert [each["image"] for each in lines(say("predict", "card", "-", "--json"))] == ["photos/dark/0.png", "photos/light/1.png"]


def test_a_file_that_is_no_image_does_not_stop_the_others(card: Path, say: Say):
    Path("photos/dark/broken.png").write_bytes(b"x")
    answer = say("predict", "card", "photos", "nowhere.png", "--json", "--batch-size", "2")
    assert answer.status == 1
    found = lines(answer)
    assert len(found) == 8
    bad = {each["image"] for each in found if "error" in each}
    assert bad == {"photos/dark/broken.png", "nowhere.png"}
    assert all(name in answer.err for name in bad)
    rows = list(csv.DictReader(io.StringIO(say("predict", "card", "photos", "--csv").out)))
    assert [row["image"] for row in rows if row["error"]] == ["photos/dark/broken.png"]


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("predict", "card", "empty"), ("folder", "empty")),
        (("predict", "card", "photos", "--json", "--csv"), ("--json", "--csv")),
        (("predict", "card", "photos", "--set", "pgd.eps=1"), ("pgd.eps", "leave it out")),
        (("predict", "card", "photos", "--set", "data.channels=1"), ("data.channels", "does not change predictions", "leave it out")),
        (("predict", "card", "photos", "--set", "data.train=train"), ("data.train", "does not change predictions", "leave it out")),
        (("predict", "card", "photos", "--set", "data.sise=16"), ("sise", "size")),
        (("predict", "card", "photos", "--set", "anytime.rule=margin"), ("threshold",)),
        (("predict", "cnn4", "photos", "--data", "folder:photos"), ("card",)),
    ],
)
def test_what_cannot_be_predicted_is_one_line(card: Path, say: Say, words: tuple[str, ...], facts: tuple[str, ...]):
    Path("empty").mkdir()
    answer = say(*words)
    assert answer.status == 2
    assert answer.err.count("\n") == 1
    assert all(fact in answer.err for fact in facts), answer.err


def test_an_exit_rule_saves_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pixels = gz.open_data("digits")[0].image[0].numpy()
    Image.fromarray((255 * pixels).astype("uint8")).save(tmp_path / "digit.png")
    words = ("predict", "mgnet.digits", tmp_path / "digit.png", "--json")
    (early,) = lines(ask(capsys, *words, "--set", "anytime.threshold=0.5"))
    (late,) = lines(ask(capsys, *words))
    assert (early["exit_step"], late["exit_step"]) == (1, 3)


def test_a_file_of_weights_is_imported_once_with_the_classes_of_the_folder(say: Say, here: Path):
    import timm

    photos(here / "photos", per_class=2)
    own = timm.create_model("mobilenetv3_small_050", num_classes=2).eval()
    torch.save({"module." + name: tensor for name, tensor in own.state_dict().items()}, "mine.pth")
    words = ("predict", "timm:mobilenetv3_small_050", "photos", "--data", "folder:photos", "--checkpoint", "mine.pth", "--json")
    first, second = say(*words), say(*words)
    assert ("module." in first.err, second.err, first.out) == (True, "", second.out)
    mean, std = (torch.tensor(value)[:, None, None] for value in (own.pretrained_cfg["mean"], own.pretrained_cfg["std"]))
    transform = gz.transform_of(gz.create_model("cnn4", task=gz.Task((224, 224), 3, ("a",))))
    for answer in lines(first):
        pixels = transform(Image.open(str(answer["image"])).resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240)))
        with torch.no_grad():
            expected = own(((pixels - mean) / std)[None]).argmax().item()
        assert answer["label"] == ("dark", "light")[int(expected)]


def test_a_file_of_weights_says_nothing_of_the_data_that_it_is_measured_on(say: Say, here: Path):
    import timm

    photos(here / "photos", per_class=10)
    torch.save(timm.create_model("mobilenetv3_small_050", num_classes=2).state_dict(), "mine.pth")
    for words in (("--data", "folder:photos"), ("--data", "folder:photos", "--set", "data.size=48")):
        answer = say("run", "timm:mobilenetv3_small_050", *words, "--checkpoint", "mine.pth", "--measure", "accuracy", "--json")
        (found,) = answer.json["results"]
        assert found["data"]["image_size"] == ([48, 48] if "data.size=48" in words else [224, 224])
        assert found["model"]["trained_on"] is None
        assert "trained" not in answer.err
