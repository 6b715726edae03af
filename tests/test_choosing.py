"""Images chosen to be shown: each is what its caption says, drawn from all of its kind."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.reports.pictures.traced import Traced
from glimpsezoo.workflows.comparing import StoredResult, read_runs
from glimpsezoo.workflows.reporting import traces_of

ZOO = Path(__file__).parent.parent / "zoo_cards"


@pytest.fixture(scope="module")
def measured() -> StoredResult:
    (found,) = read_runs([str(ZOO / "mgnet.digits")]).measured
    return found


@pytest.fixture(scope="module")
def chosen(measured: StoredResult) -> list[Traced]:
    return traces_of(measured, 7, None, [])


def kind(traced: Traced) -> str:
    return traced.chosen.split(":")[0]


def test_each_image_is_what_its_caption_says(measured: StoredResult, chosen: list[Traced]):
    early, late, wrong, clean, flipped, *more = chosen
    assert [kind(traced) for traced in (early, late, wrong, *more)] == ["Right early", "Right late", "Wrong"] * 2
    assert all(look.right for look in early.looks)
    assert (late.looks[0].right, late.looks[-1].right, wrong.looks[-1].right) == (False, True, False)
    assert (clean.looks[-1].right, flipped.looks[-1].right) == (True, False)
    assert clean.image == flipped.image
    assert kind(clean) == f"Flipped by {flipped.condition}"
    assert flipped.condition in flipped.chosen
    corruptions = measured.entry.result.corruptions
    shares = {name: row[2].value for name, row in corruptions.table.items()}
    assert flipped.condition == f"{min(shares, key=lambda name: shares[name])} 3"
    assert len({traced.image for traced in chosen}) == len(chosen) - 1


def test_captions_count_all_images_of_a_kind(measured: StoredResult, chosen: list[Traced]):
    assert measured.rows
    hits = measured.rows.hits
    counts = [int(hits.all(1).sum()), int((~hits[:, 0] & hits[:, -1]).sum()), int((~hits[:, -1]).sum())]
    said = [re.search(r"one of ([\d,]+) such images of 2,980, drawn at random", traced.chosen) for traced in chosen[:3]]
    assert [int(match[1].replace(",", "")) for match in said if match] == counts


def test_the_same_images_are_chosen_again_and_not_the_first_ones(measured: StoredResult, chosen: list[Traced]):
    assert [traced.image for traced in traces_of(measured, 2, None, [])] == [traced.image for traced in chosen[:2]]
    assert measured.rows
    first = measured.rows.id[np.flatnonzero(measured.rows.hits.all(1))[0]]
    assert not chosen[0].image.endswith(f" {first}")


def test_without_rows_or_corruptions_it_says_so_or_leaves_that_out(measured: StoredResult):
    plain = traces_of(replace(measured, rows=None), 2, None, [])
    assert {kind(traced) for traced in plain} == {"Not chosen by outcome"}
    result = measured.entry.result.model_copy(update={"corruptions": None})
    clean = traces_of(replace(measured, entry=replace(measured.entry, result=result)), 4, None, [])
    assert [kind(traced) for traced in clean] == ["Right early", "Right late", "Wrong", "Right early"]


def test_a_corruption_that_cannot_be_computed_takes_no_other_image_away(measured: StoredResult, monkeypatch: pytest.MonkeyPatch):
    def gone(*given: object) -> None:
        raise GlimpseZooError("its plugin is gone")

    monkeypatch.setattr("glimpsezoo.workflows.choosing.Corruption", gone)
    notes: list[str] = []
    assert [kind(traced) for traced in traces_of(measured, 4, None, notes)] == ["Right early", "Right late", "Wrong", "Right early"]
    assert notes == ["mgnet.digits is not shown under a corruption: its plugin is gone"]
