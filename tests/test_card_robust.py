"""A card's README tells what was measured of its robustness, number by number, with the verdict on its attacks."""

from pathlib import Path

from command_line import make_card
from test_records import RESULT
from test_tables_robust import estimate, result

from glimpsezoo.measures.corrupted import CorruptedMeasure
from glimpsezoo.measures.shown import Entry
from glimpsezoo.reports.readme import card_text


def test_a_readme_has_exits_corruptions_and_attacks(tmp_path: Path) -> None:
    point = RESULT["anytime"]["curve"][0]
    sure = {**point, "top1": estimate(0.8), "macs_mean": 8e6}
    curve = [
        {**point, "top1": estimate(0.7), "macs_mean": 4e6},
        {**sure, "threshold": 0.9999552369117737},
        {**sure, "threshold": 0.9999999403953552},
        {**point, "rule": "fixed", "top1": estimate(0.9), "macs_mean": 9e6},
    ]
    anytime = {"curve": curve, "area": 0.83, "calibrated_on": "calibration", "equal_accuracy": None}
    bad = {"eps": [8 / 255, 0.5], "only_black": 12, "verdict": "unreliable"}
    checks = {"black_box": bad, "locator": {"reached": 1.0, "verdict": "ok"}}
    found = result("mgnet", anytime=anytime, masking={"verdict": "unreliable", "checks": checks})
    text = card_text(make_card(tmp_path / "cnn4.digits"), found)
    assert "| confidence | 0.9 | 70.0 | 68.0 to 72.0 | 1.50 | 4.000 M |" in text
    assert "| confidence | 0.99995524 | 80.0" in text
    assert "| confidence | 0.99999994 | 80.0" in text
    assert "| fog | 50.0 | 50.0 | 50.0 | 50.0 |  |" in text
    assert "this is not ImageNet-C" in text
    assert "mCE 90.0 against cnn4" in text
    assert "mCE" not in card_text(make_card(tmp_path / "cnn4.digits"), result("cnn4"))  # against itself it is 100
    assert "| pgd | 50.0 | 40.0 to 60.0 | not checked | found | Linf 8/255 in pixels, 10 steps, 500 images |" in text
    assert "Gradient masking: found." in text
    assert "`black_box` found it: eps 0.0314 0.5, only black 12." in text
    assert "`locator`" not in text


def test_published_corruptions_are_never_called_others(tmp_path: Path) -> None:
    found = result("cnn4")
    read = {"implementation": "published images in ImageNet-C", "preset": "published"}
    published = found.model_copy(update={"corruptions": found.corruptions.model_copy(update=read)})
    text = card_text(make_card(tmp_path / "cnn4.digits"), published)
    assert "published images in ImageNet-C" in text
    assert "this is not ImageNet-C" not in text
    captions = {
        preset: CorruptedMeasure.tables([Entry("cnn4", each)])["Corruptions"][1].caption
        for preset, each in (("64", found), ("", published))
    }
    assert "constants for 64 px" in captions["64"]
    assert "published images in ImageNet-C)" in captions[""]


def test_a_readme_without_robustness_has_none_of_it(tmp_path: Path) -> None:
    found = result("mgnet", attacks=(), corruptions=None, anytime=None, masking=None, speed=None)
    text = card_text(make_card(tmp_path / "cnn4.digits"), found)
    assert "Under attack" not in text
    assert "Under corruptions" not in text
    assert "early exits" not in text
