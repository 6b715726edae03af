"""What ImageNet-C costs: benchmarks/scale.py measures the parts, and docs/scale.md shows the hours that follow."""

import json
import shutil
from pathlib import Path

import pytest
import scale  # pyright: ignore[reportMissingImports]

FIGURES = [scale.Figure("decode", "cpu", 0.002), scale.Figure("corrupt", "cpu", 0.001)]


def test_hours_are_those_of_every_image_under_every_condition():
    slow, quick = scale.Figure("gfnet", "cpu", 0.05, 4e9), scale.Figure("ranzato", "cpu", 0.0005, 2e6)
    whole, shares = scale.hours(FIGURES, slow)
    assert whole == pytest.approx(50_000 * (76 * (0.002 + 0.05) + 75 * 0.001) / 3600)
    assert sum(shares.values()) == pytest.approx(1)
    rows = scale.table([*FIGURES, slow, quick], "cpu").splitlines()
    assert rows[2] == "| gfnet | 4.000 G | 50.0 | 56 | the model (94 %) |"
    assert rows[3].startswith("| ranzato | 2.000 M | 0.5 | 4 | decoding")
    assert rows[4].startswith("| all 2 | | | 60 |".replace("| | |", "|  |  |"))


def test_every_part_is_measured_and_one_model_can_be_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GLIMPSEZOO_SHORT", "1")
    page, figures = Path(shutil.copy(scale.PAGE, tmp_path / "scale.md")), tmp_path / "scale.json"
    for model in ("ranzato", "mgnet", "ranzato"):
        scale.main(["--model", model, "--figures", str(figures), "--page", str(page)], standalone_mode=False)
    found = [scale.Figure(**each) for each in json.loads(figures.read_text())["figures"]]
    assert [each.of for each in found] == ["decode", "corrupt", "mgnet", "ranzato"]
    assert all(each.seconds > 0 for each in found)
    assert [each.macs is not None for each in found] == [False, False, True, True]
    assert scale.table(found, "cpu") in page.read_text()


@pytest.mark.repository
def test_the_page_shows_what_was_measured(tmp_path: Path):
    page = Path(shutil.copy(scale.PAGE, tmp_path / "scale.md"))
    content = scale.read(scale.FIGURES)
    assert [each["of"] for each in content["figures"]] == ["decode", "corrupt", *scale.MODELS]
    scale.draw(page, content)
    assert page.read_text() == scale.PAGE.read_text(), "docs/scale.md is out of date: python benchmarks/scale.py --draw"
