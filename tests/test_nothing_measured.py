"""An empty selection of images is an error, and what is left out by default becomes a note in the results."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Answer, ask
from PIL import Image

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.statistics import proportion
from glimpsezoo.zoo.results import measure_specs

MOBILE = ("timm:mobilenetv3_small_050", "--set", "data.size=32", "--checkpoint", "none")
MGNET = ("mgnet", "--set", "data.size=32", "--checkpoint", "none", "--set", "backbone=cnn4", "--set", "downsample=2", "--set", "glimpses=2")


def photos(folder: str, images: int, *, bad: bool = False) -> None:
    """Class folders with so many images each; `bad` ones cannot be decoded."""
    for name, value in (("cat", 50), ("dog", 200)):
        Path(folder, name).mkdir(parents=True)
        for number in range(images):
            path = Path(folder, name, f"{number}.png")
            if bad:
                path.write_text("version https://git-lfs.github.com/spec/v1")
            else:
                Image.new("RGB", (32, 32), (value + number,) * 3).save(path)


def refused(answer: Answer) -> str:
    assert (answer.status, answer.out) == (2, ""), answer.err
    return answer.err.splitlines()[-1]


def test_images_of_which_none_can_be_read(here: Path, capsys: pytest.CaptureFixture[str]):
    photos("data", 5, bad=True)
    line = refused(ask(capsys, "run", *MOBILE, "--data", "folder:data", "--on-bad-image", "skip"))
    assert (
        "expected images that can be read in the test split of folder:data, got none among 2 (the first: folder:data, test split: " in line
    )
    assert not list(here.glob("runs/*/*/result.json"))


@pytest.mark.parametrize("more", [(), ("--on-bad-image", "skip"), ("--limit", "1")])
def test_a_test_split_without_images(here: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]):
    photos("data/train", 4)
    photos("data/val", 4)
    Path("data/test").mkdir()
    Image.new("RGB", (32, 32)).save("data/test/1.png")  # without a class folder
    photos("few", 1)
    for name, expected in (
        ("data", "choose the split to measure by --set data.test=val"),
        ("few", "expected test images in folder:few, got none"),
    ):
        assert expected in refused(ask(capsys, "run", *MOBILE, "--data", f"folder:{name}", *more))


def without_calibration(*, bad: bool) -> None:
    """Nine training images per class, too few for the calibration split; or ten, of which the calibration image is unreadable."""
    photos("data/train", 10 if bad else 9)
    photos("data/test", 2)
    if bad:
        for path in Path("data/train").glob("*/9.png"):
            path.write_text("no image")


@pytest.mark.parametrize("bad", [False, True])
def test_without_calibration_images_a_curve_that_was_named_is_an_error(here: Path, capsys: pytest.CaptureFixture[str], bad: bool):
    without_calibration(bad=bad)
    words = ("run", *MGNET, "--data", "folder:data", "--on-bad-image", "skip")
    for measure in ("anytime", "slowdown"):
        line = refused(ask(capsys, *words, "--measure", f"accuracy,{measure}"))
        assert f"{measure} needs thresholds of early exits: expected " in line
        assert "or measure without exits (--measure quick)" in line
    assert ask(capsys, *words, "--measure", "quick").status == 0


@pytest.mark.parametrize("bad", [False, True])
def test_and_one_by_default_is_a_note_that_is_printed_and_stored(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bad: bool
):
    specs = [replace(spec, default=spec.name in {"accuracy", "anytime"}) for spec in measure_specs()]
    monkeypatch.setattr("glimpsezoo.run.parse.measure_specs", lambda: specs)
    monkeypatch.setattr("command_line.quickly", lambda texts: texts)
    without_calibration(bad=bad)
    answer = ask(capsys, "run", *MGNET, "--data", "folder:data", "--on-bad-image", "skip", "-o", "out")
    assert answer.status == 0
    result = json.loads((here / "out/mgnet/result.json").read_text())
    (note,) = result["notes"]
    assert note.startswith("no thresholds of early exits, and so no anytime curve: expected ")
    assert note in answer.err
    assert result["anytime"]["curve"][0]["rule"] == "fixed"


def test_a_model_of_one_look_needs_no_calibration(here: Path, capsys: pytest.CaptureFixture[str]):
    without_calibration(bad=False)
    answer = ask(capsys, "run", *MOBILE, "--data", "folder:data", "--measure", "accuracy,anytime")
    assert answer.status == 0
    assert "no thresholds" not in answer.err


def test_an_attack_of_a_preset_that_does_not_suit_a_model_is_noted(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("glimpsezoo.measures.attacked.STRONGER", ("slowdown",))
    photos("data", 10)
    answer = ask(capsys, "run", *MOBILE, "--data", "folder:data", "--measure", "accuracy,stronger-attacks", "-o", "out")
    assert answer.status == 0, answer.err
    (line,) = (line for line in answer.err.splitlines() if "slowdown: expected a model of several steps" in line)
    assert "not measured" in line
    (path,) = (here / "out").glob("*/result.json")
    assert "slowdown" in json.loads(path.read_text())["notes"][0]


def test_trace_of_an_image_that_is_not_there(here: Path, capsys: pytest.CaptureFixture[str]):
    photos("few", 1)
    assert "expected test images in folder:few, got none" in refused(ask(capsys, "trace", *MOBILE, "--data", "folder:few"))


def test_no_estimate_is_made_of_nothing():
    with pytest.raises(GlimpseZooError, match="expected at least one image to estimate from, got none"):
        proportion(np.zeros(0, bool), np.zeros(0, int))
