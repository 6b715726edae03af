"""Measure models on data: resolve everything first, measure in units, write results and a comparison."""

import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from glimpsezoo.cards import CONFIG, RESULT, ROWS, file_name, write_whole
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.config import task_of
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import SPLITS, open_data
from glimpsezoo.driver import rollout
from glimpsezoo.environment import environment_section
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.evaluation import Evaluation, EvaluationConfig, Job, evaluate, unit_ids
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Checkpoint, Comparison, Result, Run, Units
from glimpsezoo.reports import write_card_readme
from glimpsezoo.resolve import (
    Assignments,
    ModelChoice,
    argument_names,
    build_model,
    choose_model,
    data_folder,
    data_spec,
    declared_settings,
)
from glimpsezoo.sections import (
    accuracy_section,
    compare,
    data_section,
    declared_data_section,
    failures,
    flops_of,
    flops_section,
    model_section,
)
from glimpsezoo.specs import DatasetSpec, Task
from glimpsezoo.store import Unit, UnitStore, weights_hash, write_rows
from glimpsezoo.workflows.output import check_writable, command_line

MEASURES = ("accuracy", "flops")
COMPARISON = "comparison.json"
STORE = Path("runs", ".units")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a user asks to be measured; the fields are the options of `glimpsezoo run`."""

    models: tuple[str, ...]
    data: str
    device: torch.device
    data_dir: str | None = None
    split: str = "test"
    limit: int | None = None
    batch_size: str = "auto"
    seed: int = 0
    workers: int = 0
    sets: tuple[str, ...] = ()
    checkpoint: str | None = None
    measures: tuple[str, ...] = MEASURES
    on_bad_image: Literal["fail", "skip"] = "fail"
    output: Path | None = None
    force: bool = False
    fresh: bool = False
    update_card: bool = False

    @property
    def id(self) -> str:
        """A hash of the settings that decide what is measured."""
        kept = ("models", "data", "data_dir", "split", "limit", "seed", "sets", "checkpoint", "measures")
        text = json.dumps({name: getattr(self, name) for name in kept})
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def config(self) -> EvaluationConfig:
        return EvaluationConfig(
            batch_size="auto" if self.batch_size == "auto" else int(self.batch_size),
            device=self.device,
            workers=self.workers,
            seed=self.seed,
            on_bad_image=self.on_bad_image,
            fresh=self.fresh,
        )


@dataclass(frozen=True)
class Outcome:
    """All results of a run, and the comparison where several models were measured for accuracy. summary: where they are."""

    results: tuple[Result, ...]
    comparison: Comparison | None
    summary: str


@dataclass
class RunWork:
    """A run that is ready: `measure` each model, then `finish`.

    names, choices, models: in the order of the command. data: None where only declared sizes are needed.
    """

    request: RunRequest
    names: list[str]
    choices: list[ModelChoice]
    models: list[GlimpseModel[Any]]
    task: Task
    data: ImageData | None
    folder: Path
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    evaluations: list[Evaluation] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many each model is measured on."""
        return len(self.data) if self.data is not None else 1

    @property
    def store(self) -> UnitStore:
        return UnitStore(STORE)

    def job(self, index: int) -> Job:
        assert self.data is not None
        return Job(self.models[index], self.names[index], self.data)

    def summary(self) -> str:
        """What the run will do, and how long it should take on this device."""
        changed = [", ".join(f"{key}={value}" for key, value in choice.changed.items()) for choice in self.choices]
        models = [f"{name} ({change})" if change else name for name, change in zip(self.names, changed, strict=True)]
        what = f"{', '.join(self.request.measures)} of {', '.join(models)}"
        if self.data is None:
            return f"{what}: on images of noise, as {self.request.data} declares them"
        seconds, reused = 0.0, 0
        for index, model in enumerate(self.models):
            ids = unit_ids(self.job(index), self.request.seed)
            finished = 0 if self.request.fresh else sum(self.store.has(unit) for unit in ids)
            reused += finished
            if finished < len(ids):
                left = self.images * (1 - finished / len(ids))
                seconds += left * seconds_an_image(model, self.task, self.request.device)
        text = f"{what} on {self.request.data} {self.request.split}: {self.images:,} images a model, about {max(1, round(seconds))} s"
        return text + (f" ({blocks(reused)} measured already)" if reused else "")

    def measure(self, index: int, on_images: Callable[[int], None]) -> None:
        """Measure one model and write its result. on_images: called with the number of images finished so far."""
        model, choice = self.models[index].to(self.request.device), self.choices[index]
        accuracy, flops, units, errors = None, None, Units(done=0, reused=0), ()
        if self.data is None:
            flops, data = flops_of(model, config=self.request.config), declared_data_section(self.request.data, self.task)
        else:
            found = evaluate(self.job(index), self.request.config, self.store, on_images=on_images)
            self.evaluations.append(found)
            units, errors = Units(done=found.done, reused=found.reused), failures("accuracy", found.failed)
            data = data_section(self.data, skipped=sum(len(measured.skipped) for measured in found.measured))
            if len(found.rows):
                accuracy = accuracy_section(found.rows) if "accuracy" in self.request.measures else None
                flops = flops_section(found.rows, found.measured) if "flops" in self.request.measures else None
        assert choice.spec.provenance is not None
        result = Result(
            run=self._run(units, failed=bool(errors)),
            model=model_section(model, self.names[index], choice.spec.provenance, self._checkpoint(index)),
            data=data,
            environment=environment_section(self.request.device),
            accuracy=accuracy,
            flops=flops,
            errors=errors,
        )
        self.results.append(result)
        self._write(index, result)

    def _write(self, index: int, result: Result) -> None:
        """Write the result and its rows, and into the card too where that was asked for and nothing failed."""
        places = [self.folder / file_name(self.names[index])]
        card = self.choices[index].card
        if self.request.update_card and card and not result.errors:
            places.append(card.folder)
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            if self.data is not None and len(self.evaluations[-1].rows):
                found = self.evaluations[-1]
                write_rows(place / ROWS, Unit(found.rows, found.measured[0]))
            else:
                (place / ROWS).unlink(missing_ok=True)
            write_whole(place / RESULT, result.to_json().encode())
        if card and card.folder in places:
            write_card_readme(card)

    def finish(self) -> Outcome:
        """Compare the models, and write comparison.json."""
        comparison = None
        if len(self.results) > 1 and all(result.accuracy for result in self.results):
            rows = {name: found.rows for name, found in zip(self.names, self.evaluations, strict=True)}
            comparison = Comparison(run=self.request.id, data=self.request.data, pairs=compare(rows))
            write_whole(self.folder / COMPARISON, comparison.to_json().encode())
        return Outcome(tuple(self.results), comparison, f"{self._done()}; results in {self.folder}")

    def _done(self) -> str:
        """How much was measured, how much reused, and what failed."""
        if self.data is None:
            return "counted"
        done, reused = (sum(getattr(result.run.units, what) for result in self.results) for what in ("done", "reused"))
        errors = [failure.error for result in self.results for failure in result.errors]
        failed = f", {blocks(len(errors))} FAILED ({errors[0]}; all errors are in result.json)" if errors else ""
        return f"{blocks(done)} measured, {reused} reused{failed}"

    def _run(self, units: Units, *, failed: bool) -> Run:
        return Run(
            id=self.request.id,
            command=command_line(),
            started=self.started,
            finished=dt.datetime.now(dt.UTC),
            seed=self.request.seed,
            limit=self.request.limit,
            status="failed" if failed else "done",
            units=units,
        )

    def _checkpoint(self, index: int) -> Checkpoint | None:
        choice = self.choices[index]
        if choice.card and choice.card.config.weights:
            return Checkpoint(uri=choice.card.name, revision=None, sha256=choice.card.config.weights.sha256)
        if self.request.checkpoint == "timm":
            return Checkpoint(uri=choice.full_name, revision=None, sha256=weights_hash(self.models[index].state_dict()))
        return None


def prepare(request: RunRequest) -> RunWork:
    """Resolve and check everything that a run needs before anything is measured or written. Raises `GlimpseZooError`."""
    described = data_spec(request.data)
    _check(request, described)
    sets = Assignments.parse(request.sets, argument_names(request.models))
    sets.check_all_declared({name: declared_settings(name) for name in request.models})
    choices = [choose_model(name, request.data, sets, request.checkpoint) for name in request.models]
    names = _names(choices)
    if request.update_card and not all(choice.card for choice in choices):
        raise GlimpseZooError("--update-card expects trained cards, got a model without one: name a card, or leave it out")
    data, task = None, task_of(described, sets.data)
    if task is None or "accuracy" in request.measures or request.checkpoint != "none":
        data = _open(request, described, sets)
        task = data.task
    models = [build_model(choice, task, checkpoint=request.checkpoint, seed=request.seed) for choice in choices]
    if data is not None:
        check_writable(STORE)
    return RunWork(request, names, choices, models, task, data, _output(request))


def _check(request: RunRequest, described: DatasetSpec) -> None:
    """What needs no model and no data to be seen wrong."""
    for measure in request.measures:
        if measure not in MEASURES:
            raise GlimpseZooError(f"--measure expects any of {', '.join(MEASURES)}, got {measure!r}: {did_you_mean(measure, MEASURES)}")
    splits = tuple(described.splits) or SPLITS
    if request.split not in splits:
        raise GlimpseZooError(f"--split expects one of {', '.join(splits)}, got {request.split!r}: {did_you_mean(request.split, splits)}")
    if request.limit is not None and request.limit < 1:
        raise GlimpseZooError(f"--limit expects a number of images from 1, got {request.limit}: leave it out to measure all")
    size = request.batch_size
    if size != "auto" and not (size.isdecimal() and int(size) > 0):
        raise GlimpseZooError(f"--batch-size expects a number of images from 1, or 'auto', got {size!r}: it changes no result")
    if not request.models:
        raise GlimpseZooError("expected a model to measure, got none: try 'glimpsezoo run mgnet', or 'glimpsezoo list models'")
    if len(set(request.models)) < len(request.models):
        raise GlimpseZooError(f"expected each model once, got {' '.join(request.models)}: name each once")


def _names(choices: list[ModelChoice]) -> list[str]:
    """What each is called in results: the card's or the model's name; where that is another's too, a path's last two parts."""
    names = [choice.card.name if choice.card else choice.full_name for choice in choices]
    by_name = [choice.card is not None and not (Path(choice.name) / CONFIG).is_file() for choice in choices]
    names = [
        name if names.count(name) == 1 or keeps else "/".join(Path(choice.name).parts[-2:])
        for choice, name, keeps in zip(choices, names, by_name, strict=True)
    ]
    cards = [choice.card.folder.resolve() for choice in choices if choice.card]
    if len(set(names)) < len(names) or len(set(cards)) < len(cards):
        raise GlimpseZooError(f"expected each model once, got {' '.join(c.name for c in choices)}: two of them are the same")
    return names


def _open(request: RunRequest, described: DatasetSpec, sets: Assignments) -> ImageData:
    folder, bad = data_folder(request.data_dir), request.on_bad_image
    return limited(open_data(described, request.data, request.split, sets.data, folder, on_bad_image=bad), request.limit)


def _output(request: RunRequest) -> Path:
    """The folder for the results. Refuses one that holds another run, which --force clears away."""
    folder = request.output or STORE.parent / request.id
    others = [path for path in folder.glob(f"*/{RESULT}") if _run_id(path) != request.id] if folder.is_dir() else []
    if others and not request.force:
        raise GlimpseZooError(
            f"expected a folder of this run, got {str(folder)!r} with another's results: choose another --output, or --force"
        )
    check_writable(folder)
    for path in others:
        path.unlink()
        path.with_name(ROWS).unlink(missing_ok=True)
        (folder / COMPARISON).unlink(missing_ok=True)
    return folder


def _run_id(path: Path) -> str | None:
    """The id of the run that wrote a result; None for a file that is no result."""
    try:
        return json.loads(path.read_bytes())["run"]["id"]
    except (ValueError, KeyError, TypeError):
        return None


def blocks(count: int) -> str:
    """A number of units, in words."""
    return f"{count} block{'' if count == 1 else 's'}"


@torch.no_grad()
def seconds_an_image(model: GlimpseModel[Any], task: Task, device: torch.device, batch: int = 32) -> float:
    """How long one image takes, from the second of two small batches of noise."""
    model.to(device)
    images = torch.rand(batch, task.channels, *task.image_size, device=device)
    rollout(model, images)
    began = time.perf_counter()
    rollout(model, images)
    return (time.perf_counter() - began) / batch
