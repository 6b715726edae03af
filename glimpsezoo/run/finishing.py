"""What a finished run writes: results, their rows, a comparison, and the evidence of cards."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glimpsezoo.errors import GlimpseZooError, counted, one_line
from glimpsezoo.evaluation.environment import environment_section
from glimpsezoo.evaluation.rows import StoredUnit, to_parquet
from glimpsezoo.files import check_inside, file_name, output_to, replace_all, write_whole
from glimpsezoo.hashing import weights_hash
from glimpsezoo.measures.costs import missing_operations
from glimpsezoo.measures.pairs import Comparison, every_pair
from glimpsezoo.measures.result import Checkpoint, Failure, Result, Run, Units
from glimpsezoo.measures.sections import converted, failures, model_section
from glimpsezoo.reports.readme import card_text
from glimpsezoo.reports.seeds import with_recipes
from glimpsezoo.run.request import RunOutcome
from glimpsezoo.run.updating import evidence_of
from glimpsezoo.run.work import CLEAN, RunWork, training_of
from glimpsezoo.schema import Section
from glimpsezoo.toml_text import toml_text
from glimpsezoo.zoo.cards import README, RESULT, ROWS, Card, remember_place
from glimpsezoo.zoo.public_names import command_line
from glimpsezoo.zoo.results import is_of, measure_specs, result_type

COMPARISON, COMMAND = "comparison.json", "command.toml"


def finish(work: RunWork) -> RunOutcome:
    """Write every result, and comparison.json if several models were measured for accuracy."""
    work.store.sweep()
    comparison = _comparison(work)
    results = [_result(work, index) for index in range(len(work.models))]
    comparison = with_recipes(comparison, results, work.bench, work.notes)
    written = [_write(work, index, result) for index, result in enumerate(results)]
    with output_to(work.folder):
        write_whole(work.folder / COMMAND, f"{toml_text(work.request.options)}\n".encode())
        if comparison is not None:
            write_whole(work.folder / COMPARISON, comparison.to_json().encode())
    sealed, paths = zip(*written, strict=True)
    return RunOutcome(sealed, comparison, f"{_counts(results)}; results in {work.folder}", paths)


def _comparison(work: RunWork) -> Comparison | None:
    """Paired tests between the models, if several were measured for accuracy."""
    if len(work.models) == 1 or work.bench is None or not any(measure.name == CLEAN for measure in work.measures):
        return None
    rows = {name: work.bench.clean_rows(index) for index, name in enumerate(work.names)}
    known = {name: each for name, each in rows.items() if each is not None}
    if len(known) < len(rows):
        return None  # the errors say why
    try:
        return Comparison(run=work.request.id, data=work.chosen.shown, pairs=every_pair(known))
    except GlimpseZooError as error:  # different units of the models failed
        work.notes.append(f"no paired test: {error}")
        return None


def _result(work: RunWork, index: int) -> Result:
    choice, bench = work.choices[index], work.bench
    assert choice.spec.provenance is not None
    model, name = work.models[index], work.names[index]
    sections, errors = _sections(work, index), tuple(_errors(work, index))
    clean = bench.clean[index].measured if bench is not None else ()
    evaluations = [found for _, found in _evaluations(work, index)]
    return result_type()(
        run=_run(work, index, failed=bool(errors)),
        model=model_section(model, name, choice.spec.provenance, _checkpoint(work, index), training_of(choice)),
        data=work.data_section(sum(len(unit.skipped) for unit in clean), converted(clean)),
        environment=environment_section(work.request.device),
        errors=errors,
        notes=(*work.notes, *(bench.notes.get(index, ()) if bench is not None else ())),
        missing=missing_operations([unit for found in evaluations for unit in found.measured]) if bench else _missing_in(sections),
        **sections,
    )


def _sections(work: RunWork, index: int) -> dict[str, Any]:
    """The sections of result.json, by measure. One that fails is left out, and joins the failures of the run."""
    found = {spec.name: None for spec in measure_specs()}
    if work.bench is None:
        model = work.models[index].to(work.request.device)
        mine = {measure.name: measure.section_without_data(model, work.request.config) for measure in work.measures}
    else:
        mine = {}
        for measure in work.measures:
            try:
                mine[measure.name] = measure.section(work.bench, index, work.done.get(measure.name, {}))
            except GlimpseZooError:
                raise
            except Exception as error:  # a measure of a plugin may fail in any way: the others are written
                work.failed.append((index, _without_section(measure.name, error, len(work.bench.data))))
    return {name: mine[name] for name in found if name in mine}


def _without_section(name: str, error: Exception, images: int) -> Failure:
    owner = next(spec.provenance for spec in measure_specs() if spec.name == name)
    why = f"the measure {name} of {owner} gave no section ({type(error).__name__}: {one_line(error)})"
    return Failure(measure=name, unit="section", images=(0, images), error=why)


def _evaluations(work: RunWork, index: int) -> Iterator[tuple[str, Any]]:
    """Every evaluation of a model, each with the name of its measure."""
    if work.bench is None:
        return
    yield CLEAN, work.bench.clean[index]
    for name, by_model in work.done.items():
        yield from ((name, found) for found in by_model.get(index, {}).values() if not isinstance(found, Section | None))


def _errors(work: RunWork, index: int) -> Iterator[Failure]:
    for name, found in _evaluations(work, index):
        yield from failures(name, found.failed)
    yield from (failure for mine, failure in work.failed if mine == index)


def _write(work: RunWork, index: int, result: Result) -> tuple[Result, Path]:
    """Write the result and its rows; with --update-card, also into the card, unless units failed. Returns what was written, where."""
    folders, card = [file_name(name).replace(" ", "-") for name in work.names], work.choices[index].card
    folder = folders[index] + (f"-{index + 1}" if folders.index(folders[index]) < index else "")  # 'a/b' and 'a_b' collide
    check_inside(work.folder, work.folder / folder)
    clean = work.bench.clean[index] if work.bench is not None else None
    rows = StoredUnit(clean.rows, clean.measured[0]) if clean is not None and len(clean.rows) else None
    written = _replace(work.folder / folder, result, rows)
    if card and work.request.update_card and not result.errors:
        _replace(card.folder, evidence_of(card, result), rows, card)
    if card:
        remember_place(card)
    return written, work.folder / folder / RESULT


def _replace(folder: Path, result: Result, rows: StoredUnit | None, card: Card | None = None) -> Result:
    """Replace the result in a folder and its rows, and the README of a card, all or none. Returns the result with the hashes of both."""
    content = None if rows is None else to_parquet(rows)
    sealed = result.sealed(content)
    readme = {README: card_text(card, sealed if is_of(card, sealed) else None).encode()} if card else {}
    with output_to(folder):
        replace_all(folder, {ROWS: content, RESULT: sealed.to_json().encode(), **readme})
    return sealed


def _run(work: RunWork, index: int, *, failed: bool) -> Run:
    found = [evaluation for _, evaluation in _evaluations(work, index)]
    return Run(
        id=work.request.id,
        command=command_line(work.request.words),
        started=work.started,
        finished=dt.datetime.now(dt.UTC),
        seed=work.request.seed,
        limit=work.request.limit,
        status="failed" if failed else "done",
        units=Units(done=sum(each.done for each in found), reused=sum(each.reused for each in found)),
    )


def _checkpoint(work: RunWork, index: int) -> Checkpoint | None:
    choice = work.choices[index]
    if choice.card:
        return choice.card.checkpoint()
    if work.request.checkpoint == "timm":
        return Checkpoint(uri=choice.full_name, revision=None, sha256=weights_hash(work.models[index].state_dict()))
    return None


def _missing_in(sections: dict[str, Any]) -> tuple[str, ...]:
    """Operations without a formula, collected from the sections of a run without data."""
    return tuple(sorted({name for section in sections.values() for name in getattr(section, "missing", ())}))


def _counts(results: list[Result]) -> str:
    """How many units were measured, reused and failed."""
    if results[0].data.fingerprint is None:
        return "counted"
    done, reused = (sum(getattr(result.run.units, what) for result in results) for what in ("done", "reused"))
    errors = [failure.error for result in results for failure in result.errors]
    failed = f", {counted(len(errors), 'unit')} FAILED ({errors[0]}; all errors are in result.json)" if errors else ""
    return f"{counted(done, 'unit')} measured, {reused} reused{failed}"
