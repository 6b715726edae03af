"""The report of runs: read, traced on a few images of their data where these can be opened, and written as one page."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from glimpsezoo.cards import CONFIG
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import open_data
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.own_data import own_settings
from glimpsezoo.pages.report import Reported, report_page
from glimpsezoo.pictures.traced import Subject, Traced, Viewing, trace_image
from glimpsezoo.resolve import Assignments, build_model, choose_model, data_folder, data_spec
from glimpsezoo.workflows.comparing import Measured, card_of, presented, read_runs
from glimpsezoo.workflows.tracing import write_file


def report(runs: Sequence[str], path: Path, *, traces: int, data_dir: str | None, force: bool) -> Reported:
    """Write the report of `runs` to `path`. traces: images a model that are shown. Raises `GlimpseZooError`."""
    if path.suffix.lower() not in {".html", ".htm"}:
        raise GlimpseZooError(f"--output expects a name that ends in .html, got {path.name!r}: name the file so")
    if path.exists() and not force:
        raise GlimpseZooError(f"expected a new file, got {str(path)!r}, which is there: choose another --output, or --force")
    compared = read_runs(runs)
    shown: list[Traced] = []
    notes = list(compared.notes)
    seen = set()
    for measured in compared.measured if traces else ():
        if _looker(measured) in seen:  # the same model, measured in another run
            continue
        seen.add(_looker(measured))
        try:
            shown += _traced(measured, traces, data_dir)
        except Exception as error:  # a plugin, its data or its weights may fail in any way: the numbers are reported all the same
            notes.append(f"{measured.entry.name} is not shown looking: {one_line(error)}")
    reported = Reported(compared.entries, compared.pairs, shown, notes)
    with presented():
        page = report_page(reported)
    write_file(path, page.encode())
    return reported


def _traced(measured: Measured, images: int, data_dir: str | None) -> list[Traced]:
    """The first few of a stratified choice of the very images that were measured. Raises `GlimpseZooError` where they cannot be had."""
    result = measured.entry.result
    name = _card_name(measured)
    choice = choose_model(name, result.data.name, Assignments(scoped={name: dict(result.model.config)}), None)
    assert choice.card is not None  # or it would have raised
    settings = own_settings(choice.card.config, result.data.name) if result.data.settings is None else result.data.settings
    data = _opened(measured, settings, data_dir)
    model = build_model(choice, data.task).to(torch.device("cpu"))
    viewing = Viewing(model, measured.entry.name, seed=result.run.seed)
    chosen = [next(iter(data.examples_at([place]))) for place in range(min(images, len(data)))]
    return [
        trace_image(viewing, Subject(f"{measured.entry.data}, id {example.id}", example.image, example.label, example.id))
        for example in chosen
        if not isinstance(example, Exception)
    ]


def _looker(measured: Measured) -> str:
    """What decides how a model looks at its data."""
    result = measured.entry.result
    used = result.model.checkpoint
    return json.dumps([used.sha256 if used else None, result.model.config, result.data.name, result.data.split, result.run.seed])


def _card_name(measured: Measured) -> str:
    """What names the card that was measured."""
    if (measured.folder / CONFIG).is_file():
        return str(measured.folder)
    card = card_of(measured.entry.result)
    return card.called if card.origin and not card.has_file else str(card.folder)


def _opened(measured: Measured, settings: dict, data_dir: str | None) -> ImageData:
    """The data of a result, checked to be those that were measured; a few of them."""
    about = measured.entry.result.data
    if about.split is None or about.fingerprint is None:
        raise GlimpseZooError("no data were opened when it was measured")
    whole = open_data(data_spec(about.name), about.name, about.split, settings, data_folder(data_dir), on_bad_image="skip")
    if whole.info.fingerprint != about.fingerprint.partition("-limit")[0]:
        raise GlimpseZooError(f"{about.name} {about.split} on this machine is not the data that was measured")
    return limited(whole, len(whole.task.classes))
