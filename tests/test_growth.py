"""How cost grows: what benchmarks/growth.py measures, draws and tells, and that the page shows it."""

import json
import shutil
from pathlib import Path

import growth  # pyright: ignore[reportMissingImports]
import pytest
import torch

import glimpsezoo as gz
from glimpsezoo.core.macs import count_macs


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return Path(shutil.copy(growth.PAGE, tmp_path / "growth.md"))


def grow(page: Path, *words: str) -> list[growth.Cost]:
    """Run the script in short form beside a page. Returns the costs in its file."""
    points = page.with_suffix(".json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIMPSEZOO_SHORT", "1")
        growth.main([*words, "--points", str(points), "--page", str(page)], standalone_mode=False)
    return growth.read(points)[1]


def test_costs_are_measured_drawn_and_told(page: Path):
    costs = grow(page, "--axis", "size", "--axis", "looks", "--model", "ranzato", "--model", "timm:resnet18")
    places = [(cost.axis, cost.model, cost.at) for cost in costs]
    assert places == [
        *(("size", model, size) for model in ("ranzato", "timm:resnet18") for size in (64, 128)),
        ("looks", "ranzato", 2),  # one look is only the low-resolution one
        ("looks", "timm:resnet18", 1),
    ]
    for cost in costs:
        assert 0 < cost.ms[0] <= cost.ms[1] <= cost.ms[2]
    text = page.read_text()
    for axis in ("size", "looks"):
        assert growth.table(axis, costs) in text
        assert "timm:resnet18" in (page.with_suffix("") / f"{axis}.svg").read_text()
    assert f"{torch.get_num_threads()} thread" in text


def test_what_is_not_measured_again_stays(page: Path):
    before = grow(page, "--axis", "classes", "--model", "ranzato", "--model", "pyramid-imagenet-m1")
    points, never = page.with_suffix(".json"), (1e9, 1e9, 1e9)
    content = json.loads(points.read_text())
    points.write_text(json.dumps({**content, "costs": [{**cost, "ms": never} for cost in content["costs"]]}))
    after = grow(page, "--axis", "classes", "--model", "ranzato")
    assert [(cost.model, cost.at) for cost in after] == [(cost.model, cost.at) for cost in before]
    assert all((cost.ms == never) == (cost.model != "ranzato") for cost in after)
    assert grow(page, "--draw") == after


@pytest.mark.repository
def test_the_page_shows_what_was_measured(page: Path):
    stale = "is out of date: python benchmarks/growth.py --draw"
    machine, costs = growth.read(growth.POINTS)
    assert [(cost.axis, cost.model, cost.at) for cost in costs] == [
        (place.axis, place.model, place.at) for axis in growth.AXES for place in growth.places(axis)
    ]
    growth.draw(page, machine, costs)
    assert page.read_text() == growth.PAGE.read_text(), f"docs/growth.md {stale}"
    for drawn in page.with_suffix("").glob("*.svg"):
        assert drawn.read_text() == (growth.PAGE.with_suffix("") / drawn.name).read_text(), f"docs/growth/{drawn.name} {stale}"


@pytest.mark.parametrize("model", growth.MODELS)
def test_only_the_baseline_has_more_macs_for_a_larger_image(model: str):
    macs = []
    for size in (96, 192):
        built = growth.model_at(growth.Cost(axis="size", model=model, size=size, looks=2))
        macs.append(count_macs(lambda built=built, size=size: gz.rollout(built, torch.rand(1, 3, size, size))).macs)
    assert (macs[0] == macs[1]) == (model != "timm:resnet18"), macs


def test_a_table_says_how_often_the_first_place_goes_into_the_last():
    costs = [
        growth.Cost(axis="batch", model="ranzato", batch=batch, ms=(1, ms, 9e3), mib=mib) for batch, ms, mib in ((1, 2, 0.5), (64, 3000, 4))
    ]
    first, *_, last, growing = growth.table("batch", costs).splitlines()
    assert first == "| images per batch | mgnet | ranzato | pyramid-imagenet-m1 | timm:resnet18 |"
    assert last == "| 64 |  | 3,000 ms, 4 MiB |  |  |"
    assert growing == "| 64 x |  | 1,500 x, 8 x |  |  |"


def test_points_are_written_as_they_are_read(tmp_path: Path):
    costs = [growth.Cost(axis="looks", model="mgnet", looks=2, ms=(1.0, 2.0, 3.0), mib=4.5)]
    growth.write(tmp_path / "points.json", "a machine", costs)
    assert growth.read(tmp_path / "points.json") == ("a machine", costs)
    assert json.loads((tmp_path / "points.json").read_text())["machine"] == "a machine"
