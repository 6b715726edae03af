"""Results and rows are what was written: whatever is exchanged, cut, changed or out of its range is refused where it is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import ask, photo_card, photos

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.workflows.comparing import read_runs


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cards that are measured, the first with its result as evidence."""
    folder = tmp_path_factory.mktemp("measured")
    photos(folder / "photos", per_class=7, side=12, split="test")
    photos(folder / "photos", per_class=2, side=12, split="train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed, name in enumerate(("small", "other")):
            photo_card(Path("zoo_cards", name), size=12, seed=seed)
        patch.setattr("sys.argv", ["glimpsezoo"])
        from glimpsezoo.commands import main

        for words in (
            ["run", "small", "other", "--measure", "quick", "-o", "out"],
            ["run", "small", "--measure", "quick", "--update-card"],
        ):
            with pytest.raises(SystemExit) as end:
                main(words)
            assert not end.value.code
    return folder


@pytest.fixture
def here(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, as the working directory."""
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows_that_were_exchanged_or_halved_are_not_compared(here: Path) -> None:
    rows = [Path("out", name, "rows.parquet") for name in ("small", "other")]
    one, other = (path.read_bytes() for path in rows)
    assert read_runs(["out"]).pairs
    for content in (other, one[: len(one) // 2], b""):
        rows[0].write_bytes(content)
        with pytest.raises(GlimpseZooError, match=r"rows\.parquet that the result\.json in 'out/small' was made of"):
            read_runs(["out"])
    rows[0].unlink()
    assert not read_runs(["out"]).pairs


def test_rows_of_results_that_are_older_than_hashes_must_have_their_accuracy(here: Path) -> None:
    result, rows = Path("out/small/result.json"), Path("out/small/rows.parquet")
    known = json.loads(result.read_text())
    del known["hashes"]
    result.write_text(json.dumps(known))
    assert read_runs(["out"]).pairs
    known["accuracy"]["top1"]["value"] += 0.001
    result.write_text(json.dumps(known))
    with pytest.raises(GlimpseZooError, match="was made of"):
        read_runs(["out"])
    rows.write_bytes(rows.read_bytes()[:-9])
    with pytest.raises(GlimpseZooError, match="was made of"):
        read_runs(["out"])


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("accuracy", "top1", "value"), 7.0),
        (("accuracy", "top1", "low"), 0.999),
        (("accuracy", "top1", "n"), 0),
        (("accuracy", "steps", 0, "macs"), -1.0),
        (("flops", "macs", "mean"), -5.0),
        (("flops", "n"), 0),
        (("model", "parameters"), -1),
    ],
)
def test_values_out_of_their_range_are_refused(here: Path, where: tuple[Any, ...], value: Any, capsys: Any) -> None:
    result = Path("out/small/result.json")
    known = json.loads(result.read_text())
    place = known
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    for changed in (known, {**known, "hashes": None}):
        result.write_text(json.dumps(changed))
        found = ask(capsys, "compare", "out")
        assert found.status == 2
        assert "result.json" in found.err


def test_a_result_that_was_changed_within_its_ranges_is_refused(here: Path, capsys: Any) -> None:
    for result in (Path("zoo_cards/small/result.json"), Path("out/small/result.json")):
        known = result.read_text()
        result.write_text(json.dumps(json.loads(known)))  # another layout is the same content
        assert ask(capsys, "compare", result).status == 0
        result.write_text(known.replace('"seed": 0', '"seed": 1', 1))
        found = ask(capsys, "compare", result)
        assert found.status == 2
        assert "changed since it was written" in found.err
    assert "not measured" in ask(capsys, "show", "small").out


def test_a_damaged_unit_is_measured_again_with_a_note(here: Path, capsys: Any) -> None:
    before = json.loads(Path("out/small/result.json").read_text())
    unit = min(Path("runs/.units").glob("*.parquet"))
    content = unit.read_bytes()
    unit.write_bytes(content[:40] + bytes(byte ^ 16 for byte in content[40:60]) + content[60:])
    found = ask(capsys, "run", "small", "other", "--measure", "quick", "-o", "out")
    assert found.status == 0
    assert f"{unit.name} in runs/.units is damaged or not what its name says: measured again" in found.err
    assert "1 unit measured, 1 reused" in found.err
    after = json.loads(Path("out/small/result.json").read_text())
    assert {key: before[key] for key in ("accuracy", "flops")} == {key: after[key] for key in ("accuracy", "flops")}
    assert "damaged" not in ask(capsys, "run", "small", "other", "--measure", "quick", "-o", "out").err


def test_a_card_with_rows_of_another_result_is_not_published(here: Path, capsys: Any) -> None:
    Path("zoo_cards/small/rows.parquet").write_bytes(Path("out/other/rows.parquet").read_bytes())
    found = ask(capsys, "push", "small", "me/small")
    assert found.status == 2
    assert "'zoo_cards/small' was made of" in found.err
