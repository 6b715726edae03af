"""Measure models on data: resolve everything first, measure in units, write results and a comparison."""

import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from glimpsezoo.cards import RESULT, write_whole
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import open_data
from glimpsezoo.driver import rollout
from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.evaluation import Evaluation, EvaluationConfig, Job, evaluate, unit_ids
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Checkpoint, Comparison, Data, Failure, Model, Result, Run, Units
from glimpsezoo.reports import ROWS, write_card_readme
from glimpsezoo.resolve import Assignments, ModelChoice, build_model, choose_model, data_folder, data_spec, declared_settings
from glimpsezoo.sections import accuracy_section, compare, environment_section, flops_of, flops_section
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, Task, load_string
from glimpsezoo.store import Unit, UnitStore, write_rows
from glimpsezoo.workflows.training import command_line

MEASURES = ("accuracy", "flops")
COMPARISON = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a user asks to be measured; the fields are the options of `glimpsezoo run`."""

    models: tuple[str, ...]
    data: str = "digits"
    data_dir: str | None = None
    split: str = "test"
    limit: int | None = None
    batch_size: str = "auto"
    device: torch.device = torch.device("cpu")
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
        """Raises `GlimpseZooError` for a batch size that is none."""
        size = self.batch_size
        if size != "auto" and not (size.isdecimal() and int(size) > 0):
            raise GlimpseZooError(f"--batch-size expects a number of images from 1, or 'auto', got {size!r}")
        return EvaluationConfig(
            batch_size="auto" if size == "auto" else int(size),
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

    choices, models: in the order of the command. data: None where only declared sizes are needed.
    """

    request: RunRequest
    choices: list[ModelChoice]
    models: list[GlimpseModel[Any]]
    described: DatasetSpec
    task: Task
    data: ImageData | None
    folder: Path
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    evaluations: list[Evaluation] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [choice.card.name if choice.card else choice.full_name for choice in self.choices]

    @property
    def images(self) -> int:
        """How many each model is measured on."""
        return len(self.data) if self.data is not None else 1

    @property
    def store(self) -> UnitStore:
        return UnitStore(Path("runs", ".units"))

    def job(self, index: int) -> Job:
        assert self.data is not None
        return Job(self.models[index], self.names[index], self.data)

    def summary(self) -> str:
        """What the run will do, and how long it should take on this device."""
        what = f"{', '.join(self.request.measures)} of {', '.join(self.names)}"
        if self.data is None:
            return f"{what}: on images of noise, as {self.request.data} declares them"
        seconds, reused = 0.0, 0
        for index, model in enumerate(self.models):
            ids = [] if self.request.fresh else unit_ids(self.job(index), self.request.seed)
            finished = sum(self.store.has(unit) for unit in ids)
            reused += finished
            share = 1 - finished / len(ids) if ids else 1.0
            seconds += share * self.images * seconds_an_image(model, self.task, self.request.device)
        text = f"{what} on {self.request.data} {self.request.split}: {self.images:,} images a model, about {max(1, round(seconds))} s"
        return text + (f" ({reused} blocks are measured already)" if reused else "")

    def measure(self, index: int, on_images: Callable[[int], None]) -> None:
        """Measure one model and write its result. on_images: called with the number of images finished so far."""
        model, errors = self.models[index].to(self.request.device), ()
        accuracy = flops = None
        units = Units(done=0, reused=0)
        if self.data is None:
            flops = flops_of(model, self.task, self.request.seed)
        else:
            found = evaluate(self.job(index), self.request.config, self.store, on_images=on_images)
            self.evaluations.append(found)
            units = Units(done=found.done, reused=found.reused)
            errors = tuple(
                Failure(measure="accuracy", unit=block.id, images=(block.start, block.stop), error=one_line(block.error))
                for block in found.failed
                if block.error
            )
            if len(found.rows):
                accuracy = accuracy_section(found.rows) if "accuracy" in self.request.measures else None
                flops = flops_section(found.rows, found.measured) if "flops" in self.request.measures else None
        result = Result(
            run=self._run(units, failed=bool(errors)),
            model=self._model(index),
            data=self._data(),
            environment=environment_section(self.request.device, list(model_distributions(self.choices))),
            accuracy=accuracy,
            flops=flops,
            errors=errors,
        )
        self.results.append(result)
        self._write(index, result)

    def _write(self, index: int, result: Result) -> None:
        folder = self.folder / file_name(self.names[index])
        folder.mkdir(parents=True, exist_ok=True)
        places = [folder]
        card = self.choices[index].card
        if self.request.update_card and card:
            places.append(card.folder)
        for place in places:
            if self.data is not None:
                found = self.evaluations[-1]
                write_rows(place / ROWS, Unit(found.rows, found.measured[0]))
            write_whole(place / RESULT, result.to_json().encode())
        if self.request.update_card and card:
            write_card_readme(card, result)

    def finish(self) -> Outcome:
        """Compare the models, and write comparison.json."""
        comparison = None
        if len(self.results) > 1 and all(result.accuracy for result in self.results):
            rows = {name: found.rows for name, found in zip(self.names, self.evaluations, strict=True)}
            comparison = Comparison(run=self.request.id, data=self.request.data, pairs=compare(rows))
            write_whole(self.folder / COMPARISON, comparison.to_json().encode())
        done, reused = (sum(getattr(result.run.units, what) for result in self.results) for what in ("done", "reused"))
        failed = sum(len(result.errors) for result in self.results)
        text = f"{done} blocks measured, {reused} reused" + (f", {failed} FAILED (see errors in result.json)" if failed else "")
        return Outcome(tuple(self.results), comparison, f"{text if self.data is not None else 'counted'}; results in {self.folder}")

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

    def _model(self, index: int) -> Model:
        choice, model = self.choices[index], self.models[index]
        card, provenance = choice.card, choice.spec.provenance
        checkpoint = None
        if card and card.config.weights:
            checkpoint = Checkpoint(uri=card.name, revision=None, sha256=card.config.weights.sha256)
        elif self.request.checkpoint == "timm":
            checkpoint = Checkpoint(uri=choice.full_name, revision=None, sha256="")
        return Model(
            name=self.names[index],
            plugin=provenance.distribution if provenance else "?",
            plugin_version=provenance.version if provenance else "?",
            config=choice.settings.model_dump(mode="json"),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            steps=model.steps,
            policy=model.policy,
            sees=model.sees,
            checkpoint=checkpoint,
        )

    def _data(self) -> Data:
        info = asdict(self.data.info) if self.data is not None else {}
        return Data(
            name=self.request.data,
            source=info.get("source"),
            revision=info.get("revision"),
            fingerprint=info.get("fingerprint"),
            split=info.get("split"),
            examples=self.images if self.data is not None else 0,
            skipped=sum(len(measured.skipped) for measured in self.evaluations[-1].measured) if self.evaluations else 0,
            image_size=self.task.image_size,
            channels=self.task.channels,
            classes=len(self.task.classes),
        )


def prepare(request: RunRequest) -> RunWork:
    """Resolve and check everything that a run needs before anything is measured or written. Raises `GlimpseZooError`."""
    for measure in request.measures:
        if measure not in MEASURES:
            raise GlimpseZooError(f"--measure expects any of {', '.join(MEASURES)}, got {measure!r}: {did_you_mean(measure, MEASURES)}")
    if not request.models:
        raise GlimpseZooError("expected a model to measure, got none: try 'glimpsezoo run mgnet', or 'glimpsezoo list models'")
    if len(set(request.models)) < len(request.models):
        raise GlimpseZooError(f"expected each model once, got {' '.join(request.models)}")
    described, _ = data_spec(request.data), request.config
    sets = Assignments.parse(request.sets, request.models)
    sets.check_all_declared({name: declared_settings(name) for name in request.models})
    choices = [choose_model(name, request.data, sets, request.checkpoint) for name in request.models]
    needs_data = "accuracy" in request.measures or request.checkpoint != "none"
    data = _open(request, described, sets) if needs_data else None
    task = data.task if data is not None else declared_task(described, request.data, sets)
    models = [build_model(choice, task, checkpoint=request.checkpoint, seed=request.seed) for choice in choices]
    return RunWork(request, choices, models, described, task, data, _output(request))


def _open(request: RunRequest, described: DatasetSpec, sets: Assignments) -> ImageData:
    if request.limit is not None and request.limit < 1:
        raise GlimpseZooError(f"--limit expects 1 image or more, got {request.limit}")
    data = open_data(described, request.data, request.split, sets.data, data_folder(request.data_dir))
    return limited(data, request.limit)


def declared_task(described: DatasetSpec, name: str, sets: Assignments) -> Task:
    """The task that a data set declares without being opened. Raises `GlimpseZooError` where only opening it tells."""
    schema: type[Settings] = load_string(described.config)
    schema.parse(sets.data, owner="data")
    if described.task is None:
        raise GlimpseZooError(f"{name} does not declare its image size and classes: measure it with its data (--measure accuracy,flops)")
    return described.task


def _output(request: RunRequest) -> Path:
    """Make the folder for the results. Refuses one that holds another run, unless told to overwrite it."""
    folder = request.output or Path("runs", request.id)
    for path in folder.glob(f"*/{RESULT}") if folder.is_dir() else ():
        other = json.loads(path.read_bytes()).get("run", {}).get("id")
        if other != request.id and not request.force:
            raise GlimpseZooError(f"{folder} holds the results of another run: choose another --output, or --force to overwrite them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise GlimpseZooError(f"cannot write to the output folder {folder}: {error.strerror}") from None
    return folder


def file_name(name: str) -> str:
    """A model's name as a folder's."""
    return name.replace(":", "_").replace("/", "_")


def model_distributions(choices: list[ModelChoice]) -> dict[str, None]:
    """The distributions of these models' plugins, in order."""
    return dict.fromkeys(choice.spec.provenance.distribution for choice in choices if choice.spec.provenance)


@torch.no_grad()
def seconds_an_image(model: GlimpseModel[Any], task: Task, device: torch.device, batch: int = 32) -> float:
    """How long one image takes, from the second of two small batches of noise."""
    model.to(device)
    images = torch.rand(batch, task.channels, *task.image_size, device=device)
    rollout(model, images)
    began = time.perf_counter()
    rollout(model, images)
    return (time.perf_counter() - began) / batch

