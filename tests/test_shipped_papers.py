"""The papers of the plugins on the cards of this repository: every number and claim says where it is from, and the pages have them."""

import re
from functools import cache
from pathlib import Path

import pytest

from glimpsezoo import PaperSpec
from glimpsezoo.reports.paper import Reproduction
from glimpsezoo.workflows.evidence import Zoo
from glimpsezoo.workflows.reproducing import reproduce, write_reproduction
from glimpsezoo.zoo.papers import PrintedTables
from glimpsezoo.zoo.plugins import registry

pytestmark = pytest.mark.repository
ROOT = Path(__file__).parent.parent
COMMAND = "glimpsezoo compare --paper benchmarks/cards/* -o docs/REPRODUCTION.md"


@cache
def shipped() -> tuple[Reproduction, ...]:
    """The reproductions that the committed page is written from."""
    cards = sorted(path.parent for path in (ROOT / "benchmarks" / "cards").glob("*/config.json"))
    return tuple(reproduce([str(card) for card in cards]))


def test_reproduction_md_is_what_the_cards_have_in_evidence(tmp_path: Path) -> None:
    """Writing the page and its plots again gives the committed files."""
    for written in write_reproduction(shipped(), tmp_path / "REPRODUCTION.md"):
        kept = ROOT / "docs" / written.relative_to(tmp_path)
        assert kept.is_file(), f"{kept.name} is missing: {COMMAND}"
        assert kept.read_text() == written.read_text(), f"{kept.name} is old: {COMMAND}"


def test_every_row_of_the_shipped_papers_has_a_recipe_or_is_of_others() -> None:
    for spec in registry().all(PaperSpec):
        printed = PrintedTables.of(spec)
        assert printed.claim, spec.name
        assert printed.left_out, spec.name
        for each in printed.table:
            assert each.needs or all(row.module for row in each.row), (spec.name, each.title)


def test_every_number_of_the_shipped_papers_says_how_its_card_was_trained() -> None:
    """Departures from the paper's training stand beside the number that they may explain."""
    for each in shipped():
        told = PrintedTables.of(each.paper).training
        for table in each.tables:
            for answer in table.answers:
                if answer.ours is not None:
                    assert told.get(answer.row.card or ""), (each.paper.name, answer.row.card)
                    assert answer.epochs, answer.row.card
    assert {spec.name for spec in registry().all(PaperSpec)} >= {"mgnet-2021", "ranzato-2014", "pyramid-traversal-2020"}


def test_findings_tell_the_epochs_of_their_cards() -> None:
    """Training may explain a difference, so the table about the pyramid's figure lists its cards' epochs."""
    zoo, rows = Zoo(), re.findall(r"^\| .* \| ([^|]*) \| (pyramid-\S+) \|$", (ROOT / "docs" / "findings.md").read_text(), re.MULTILINE)
    assert len(rows) >= 22
    for epochs, card in rows:
        assert zoo.epochs(card) == epochs, card


def test_the_claims_that_were_tested_from_outside_have_those_verdicts() -> None:
    """Independent tests of the shipped cards' rows."""
    told = {
        (judged.claim.a.card, judged.claim.b.card, judged.claim.a.step): judged
        for found in shipped()
        for judged in found.claims
        if judged.claim.a and judged.claim.b and judged.claim.test in {"better", "no worse"} and not judged.claim.instead
    }
    for key, effect, verdict in (
        (("mgnet.gtmnist", "cnn4.gtmnist", 5), (-0.34, -0.52, -0.17), "not reproduced"),  # three seeds
        (("ranzato.jittered-mnist.2", "ranzato.jittered-mnist.2-parallel", None), (-0.01, -0.09, 0.07), "not reproduced"),  # three seeds
        (("ranzato.jittered-mnist.2", "ranzato.jittered-mnist.2-shared", None), (-0.21, -0.32, -0.12), "reversed"),  # three seeds
        (("ranzato.mnist.1", "ranzato.mnist.1-centre", None), (0.01, -0.12, 0.13), "not reproduced"),  # three seeds
    ):
        judged = told[key]
        assert judged.effect is not None
        assert tuple(round(100 * number, 2) for number in (judged.effect.value, judged.effect.low, judged.effect.high)) == effect
        assert judged.verdict() == verdict


def test_every_claim_of_the_shipped_papers_quotes_and_says_where() -> None:
    for found in shipped():
        assert len(PrintedTables.of(found.paper).claim) == len(found.claims) > 0
        for judged in found.claims:
            assert judged.effect is not None or judged.missing.strip(), judged.claim.quote
    counts = {found.paper.name: len(found.claims) for found in shipped()}
    assert all(counts[name] > 20 for name in ("mgnet-2021", "ranzato-2014", "pyramid-traversal-2020"))
