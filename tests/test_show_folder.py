"""`show folder:PATH` says what is there; `--measure flops` looks at names alone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Answer, make_card, photo_card
from data_files import picture, save
from PIL import Image

import glimpsezoo as gz
from glimpsezoo.data import digests, encoded

Say = Callable[..., Answer]


@pytest.fixture
def photos(here: Path) -> Path:
    """Two classes of 14 images in two sizes, one of them transparent and one grey."""
    for label in ("cat", "dog"):
        for k in range(14):
            save(picture(k, 60).crop((0, 0, 60, 40 + 8 * (k % 2))), here / "photos" / label / f"{k:02}.png")
    Image.new("RGBA", (30, 90)).save(here / "photos/cat/00.png")
    Image.new("L", (60, 40)).save(here / "photos/dog/00.png")
    return here / "photos"


def test_it_says_what_is_in_a_folder_and_its_command_trains(say: Say, photos: Path):
    told = say("show", "folder:photos", "--json").json
    assert told["images"] == 28
    assert told["images of a class"] == {name: {"train": 11, "calibration": 1, "test": 2} for name in ("cat", "dog")}
    assert told["sizes"] == {
        "width": "30 to 60 px",
        "height": "40 to 90 px",
        "most frequent": "60 x 48 (14 images), 60 x 40 (13 images), 30 x 90 (1 image)",
    }
    assert told["modes"] == {"RGB": 26, "RGBA": 1, "L": 1}
    assert told["bad files"] == "none"
    assert told["next"] == "glimpsezoo train mgnet --data folder:photos"
    answer = say(*told["next"].split()[1:], "--set", "train.steps=1")
    assert answer.status == 0, answer.err
    out = say("show", "folder:photos").out
    assert "cat: train=11, calibration=1, test=2" in out


def test_bad_files_are_named_with_the_reason(say: Say, photos: Path):
    (photos / "cat/05.png").write_bytes(b"no picture")
    whole = (photos / "dog/03.png").read_bytes()
    (photos / "dog/03.png").write_bytes(whole[: len(whole) // 2])
    (photos / "dog/04.png").write_bytes(b"")
    told = say("show", "folder:photos", "--json").json
    assert sorted(told["bad files"]) == ["cat/05.png", "dog/03.png", "dog/04.png"]
    assert "no image format that Pillow knows" in told["bad files"]["cat/05.png"]
    assert "got none" in told["bad files"]["dog/04.png"]
    assert told["next"].startswith("remove or repair the bad files, then glimpsezoo train mgnet")
    assert sum(told["modes"].values()) == 25
    for name in told["bad files"]:
        (photos / name).unlink()
    assert say("show", "folder:photos", "--json").json["bad files"] == "none"


def test_classes_without_an_image_of_a_split_are_told_beforehand(say: Say, photos: Path):
    (photos / "emu").mkdir()
    (photos / "cat/00.png").rename(photos / "emu/00.png")
    told = say("show", "folder:photos", "--json").json
    assert "no test image of 'emu', which has fewer than 5: 'run' takes --on-bad-image skip" in told["notes"]
    few = ("run", "cnn4", "--checkpoint", "none", "--data", "folder:photos", "--set", "data.size=16", "--measure", "accuracy")
    assert say(*few).status == 2
    assert say(*few, "--on-bad-image", "skip").status == 0

    for split in ("train", "test"):
        for label in ("cat", "dog"):
            shutil.copytree(photos / label, photos.with_name("split") / split / label)
    (photos.with_name("split") / "train/cat").rename(photos.with_name("split") / "train/fox")
    told = say("show", "folder:split", "--json").json
    assert told["next"] == "add images to train on of cat, then glimpsezoo train mgnet --data folder:split"


def test_many_images_are_sampled_and_it_says_so(say: Say, photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("glimpsezoo.workflows.describing.MOST_DECODED", 6)
    told = say("show", "folder:photos", "--json").json
    assert told["bad files"].startswith("none among ")
    assert told["bad files"].endswith("of 28 images")


def test_a_folder_without_images_to_train_on_says_so(say: Say, photos: Path):
    (photos / "test").mkdir()
    for name in ("cat", "dog"):
        (photos / name).rename(photos / "test" / name)
    told = say("show", "folder:photos", "--json").json
    assert told["splits"]["test"] == told["images"] == 28
    assert "name images to train on" in told["next"]
    other = say("show", "folder:photos", "--set", "data.train=test", "--json").json
    assert other["next"] == "glimpsezoo train mgnet --data folder:photos --set data.train=test"


def test_flops_alone_neither_reads_nor_hashes_an_image(say: Say, photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch):
    for file in photos.rglob("*.png"):
        file.write_bytes(b"unreadable")

    def read(*_: Any) -> Any:
        raise AssertionError("an image was read")

    monkeypatch.setattr(encoded, "_read_file", read)
    monkeypatch.setattr(digests, "_hashed", read)
    photo_card(here / "zoo_cards" / "cnn4.pets", data="folder:photos", classes="cat dog")
    words = ("--measure", "flops", "--json")
    for told in (say("run", "cnn4.pets", *words), say("run", "cnn4", "--checkpoint", "none", "--data", "folder:photos", *words)):
        assert told.status == 0, told.err
        (result,) = told.json["results"]
        assert (result["flops"]["images"], result["data"]["fingerprint"], result["data"]["classes"]) == ("noise", None, 2)
    assert result["data"]["image_size"] == [224, 224]
    assert say("run", "cnn4.pets", "--measure", "accuracy").status != 0  # which does read them
    make_card(here / "zoo_cards" / "wrong", data="folder:photos", task=gz.Task((32, 32), 3, ("cat", "fox")))
    assert "expects data with its 2 classes (cat, fox), got 2 (cat, dog)" in say("run", "wrong", *words).err
