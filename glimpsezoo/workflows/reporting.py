"""Writes the report of runs as one page, with traces of chosen images if the data can be opened."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from glimpsezoo.data.among import among
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import open_data
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.reports.page import Reported, report_page
from glimpsezoo.reports.pictures.traced import Traced, Viewing, trace_image
from glimpsezoo.workflows.choosing import MeasuredModel, chosen_traces
from glimpsezoo.workflows.comparing import StoredResult, card_of, presented, read_runs
from glimpsezoo.workflows.tracing import check_new, write_file
from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.names import Assignments, build_model, choose_model, data_folder, data_spec
from glimpsezoo.zoo.own_data import own_settings


def report(runs: Sequence[str], path: Path, *, traces: int, data_dir: str | None, force: bool) -> Reported:
    """Write the report of `runs` to `path`. traces: images per model. Raises `GlimpseZooError` for bad names and an unwritable path."""
    if path.suffix.lower() not in {".html", ".htm"}:
        raise GlimpseZooError(f"--output expects a name that ends in .html, got {path.name!r}: choose such a name")
    check_new(path, None, force=force)
    compared = read_runs(runs)
    shown: list[Traced] = []
    notes = list(compared.notes)
    seen = set()
    for measured in compared.measured if traces else ():
        if _looker(measured) in seen:  # the same model, measured in another run
            continue
        seen.add(_looker(measured))
        try:
            shown += traces_of(measured, traces, data_dir, notes)
        except Exception as error:  # a plugin, its data or its weights may fail in any way; the report needs none of them
            notes.append(f"{measured.entry.name} is not shown looking: {one_line(error)}")
    reported = Reported(compared.entries, compared.pairs, shown, notes, compared.recipes)
    with presented():
        page = report_page(reported)
    write_file(path, page.encode(), force=force)
    return reported


def traces_of(measured: StoredResult, images: int, data_dir: str | None, notes: list[str]) -> list[Traced]:
    """Traces of images chosen by their rows; without rows, of the first few. notes: gets what cannot be shown, and why.

    Raises `GlimpseZooError` if the data are unavailable.
    """
    result = measured.entry.result
    name = _card_name(measured)
    choice = choose_model(name, result.data.name, Assignments(scoped={name: dict(result.model.config)}), None)
    card = choice.own_card.config
    settings = own_settings(card, result.data.name) if result.data.settings is None else result.data.settings
    data = _opened(measured, settings, card.task.classes, data_dir)
    model = build_model(choice, data.task).to(torch.device("cpu"))
    viewing = Viewing(model, measured.entry.name, seed=result.run.seed)
    rows = measured.rows
    found = MeasuredModel(viewing, data, Rows.empty(model.steps) if rows is None else rows, result)
    if len(found.rows) == len(data):
        return chosen_traces(found, images, notes)
    said = "Not chosen by outcome: no row of this image lies beside the result"
    shown = [found.shown(place, said) for place in range(min(images, len(data)))]
    return [trace_image(viewing, subject) for subject in shown if subject]


def _looker(measured: StoredResult) -> str:
    """A key of everything that determines the traces of a result."""
    result = measured.entry.result
    used = result.model.checkpoint
    return json.dumps([used.sha256 if used else None, result.model.config, result.data.name, result.data.split, result.run.seed])


def _card_name(measured: StoredResult) -> str:
    """The name or path of the measured card."""
    if (measured.folder / CONFIG).is_file():
        return str(measured.folder)
    card = card_of(measured.entry.result)
    return card.called if card.origin and not card.has_file else str(card.folder)


def _opened(measured: StoredResult, settings: dict, classes: tuple[str, ...], data_dir: str | None) -> ImageData:
    """The measured images, in the order of their rows, among the card's classes.

    Raises `GlimpseZooError` if the data on this machine differ.
    """
    about = measured.entry.result.data
    if about.split is None or about.fingerprint is None:
        raise GlimpseZooError("it was measured without data")
    whole = among(open_data(data_spec(about.name), about.name, about.split, settings, data_folder(data_dir), on_bad_image="skip"), classes)
    fingerprint, _, limit = about.fingerprint.partition("-limit")
    if whole.info.fingerprint != fingerprint:
        raise GlimpseZooError(f"{about.name} {about.split} on this machine is not the data that was measured")
    return limited(whole, int(limit) if limit else None)
