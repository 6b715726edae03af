"""Writes the results of a run: into its folder and, with `--update-card`, into the card's. A folder is changed as a whole or not at all."""

from pathlib import Path

from glimpsezoo.evaluation.rows import StoredUnit, to_parquet
from glimpsezoo.files import output_to, replace_all
from glimpsezoo.measures.result import Result
from glimpsezoo.reports.readme import card_text
from glimpsezoo.zoo.cards import README, RESULT, ROWS, Card, remember_place
from glimpsezoo.zoo.results import is_of


def write_result(folder: Path, result: Result, rows: StoredUnit | None) -> Result:
    """Write a result and its rows. Returns the result with the hashes of both."""
    return _write(folder, result, rows, None)


def update_card(card: Card, result: Result, rows: StoredUnit | None) -> None:
    """Write a result and its rows as a card's evidence, and the card's README."""
    _write(card.folder, result, rows, card)
    remember_place(card)


def _write(folder: Path, result: Result, rows: StoredUnit | None, card: Card | None) -> Result:
    content = None if rows is None else to_parquet(rows)
    sealed = result.sealed(content)
    readme = {README: card_text(card, sealed if is_of(card, sealed) else None).encode()} if card else {}
    with output_to(folder):
        replace_all(folder, {ROWS: content, RESULT: sealed.to_json().encode(), **readme})
    return sealed
