"""Files of schema 1, as they were when this test was written (`tests/schema_1`), are read; those of another version are refused.

The files are never written again: a change that cannot read them needs a new version, and a folder of its own beside this one.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer
from row_files import read_rows

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.pairs import Comparison
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.recipes import Recipe
from glimpsezoo.zoo.results import evidence, read_result

FILES = Path(__file__).parent / "schema_1"


@pytest.fixture
def stored(here: Path) -> Path:
    shutil.copytree(FILES, here / "stored")
    return here / "stored"


def edited(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_every_command_that_reads_results_and_cards_reads_them(stored: Path, say: Callable[..., Answer]) -> None:
    for words in (("compare", "stored/run"), ("show", "stored/cnn4.digits"), ("compare", "stored/cnn4.digits")):
        answer = say(*words, "--json")
        assert answer.status == 0, answer.err
        assert "0.9" in answer.out or "1.0" in answer.out
    assert say("report", "stored/run", "-o", "page.html").status == 0
    assert "mgnet.digits" in Path("page.html").read_text()


def test_the_files_themselves_are_read_to_the_last_key(stored: Path) -> None:
    for name in ("mgnet.digits", "cnn4.digits"):
        text = (stored / "run" / name / "result.json").read_text()
        result, kept = read_result(text), json.loads(text)
        again = json.loads(result.to_json())
        assert result.accuracy
        later = {"accuracy": {**kept["accuracy"], "ties": None}}  # added since, and unknown
        later["model"] = {**kept["model"], "trained_on": {**kept["model"]["trained_on"], "recipe": None, "seed": None}}
        assert {key: again[key] for key in kept} == {**kept, **later}
        unit = read_rows(stored / "run" / name / "rows.parquet")
        assert unit is not None
        assert len(unit.rows) == 20
        assert unit.rows.hits[:, -1].mean() == result.accuracy.top1.value
    assert len(Comparison.model_validate_json((stored / "run" / "comparison.json").read_bytes()).pairs) == 2
    card = Card.read(stored / "cnn4.digits")
    assert evidence(card) is not None
    assert Recipe.from_toml((stored / "recipe.toml").read_text(), name="it").phase


@pytest.mark.parametrize(("version", "remedy"), [(2, "a newer glimpsezoo wrote: update glimpsezoo"), ("x", "make the file again")])
def test_another_version_is_refused_with_what_to_do(stored: Path, say: Callable[..., Answer], version: object, remedy: str) -> None:
    edited(stored / "run" / "mgnet.digits" / "result.json", schema=version, new_key=1)
    edited(stored / "cnn4.digits" / "config.json", format=version, another=1)
    for words in (("compare", "stored/run"), ("report", "stored/run", "-o", "page.html"), ("show", "stored/cnn4.digits")):
        answer = say(*words)
        assert answer.status == 2
        assert answer.err.count("\n") == 1
        assert f"expected version 1, got {version}, which " in answer.err
        assert remedy in answer.err
    with pytest.raises(GlimpseZooError, match="expected version 1"):
        Recipe.from_toml(f"format = {json.dumps(version)}\n" + (stored / "recipe.toml").read_text(), name="it")
