"""Trace images that a user asks to see, and write the file that shows them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from glimpsezoo.conditions.corruptions.condition import Corruption
from glimpsezoo.core.exits import ExitRule, Fixed
from glimpsezoo.data.among import among
from glimpsezoo.data.loading import open_data
from glimpsezoo.data.opening import told
from glimpsezoo.data.preprocessing import Preprocessing
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.files import file_name, output_to, write_whole
from glimpsezoo.measures.attacked import AttackWanted, built_attack
from glimpsezoo.measures.calibration import given_rule
from glimpsezoo.measures.catalogue import EXITS
from glimpsezoo.measures.corrupted import CorruptionWanted
from glimpsezoo.measures.result import departure, policy_marks
from glimpsezoo.measures.sections import declared_data_section
from glimpsezoo.measures.text import budget_text
from glimpsezoo.reports.flip import flip_page
from glimpsezoo.reports.pictures.layout import panel, sheet
from glimpsezoo.reports.pictures.raster import gif_file, png_file
from glimpsezoo.reports.pictures.scene import beside, framed
from glimpsezoo.reports.pictures.svg import svg_file
from glimpsezoo.reports.pictures.traced import Subject, Traced, Viewing, trace_image
from glimpsezoo.run.parse import parse_condition, scopes
from glimpsezoo.specs import Task
from glimpsezoo.workflows.predicting import noise_id, preprocessing_like
from glimpsezoo.zoo.names import (
    Assignments,
    argument_names,
    build_model,
    choose_model,
    data_folder,
    declared_settings,
)
from glimpsezoo.zoo.own_data import DataChoice, choose_data, trained_on
from glimpsezoo.zoo.plugins import registry

ENDINGS = (".png", ".svg", ".gif", ".html")
MOST_PIXELS = 40_000_000  # of a PNG; viewers cannot open larger ones


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """The arguments and options of `glimpsezoo trace`."""

    model: str
    device: torch.device
    data: str | None = None
    """None takes the data of the card."""
    data_dir: str | None = None
    split: str = "test"
    indices: tuple[int, ...] = ()
    """Images of the split. Without `indices` and `files`, the first image is shown."""
    files: tuple[Path, ...] = ()
    """Image files to show instead of images of the data."""
    under: str | None = None
    """A condition to show as well: `fog:3`, `pgd:4/255`."""
    sets: tuple[str, ...] = ()
    """`--set` texts."""
    checkpoint: str | None = None
    seed: int = 0
    html: bool = False
    output: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class DrawnTraces:
    """The traces and the file that shows them."""

    rows: tuple[tuple[Traced, ...], ...] = field(repr=False)
    """One row per image, with one trace per condition."""
    path: Path
    note: str | None = None
    """What was inferred about the data."""
    departure: str = ""
    """How the data differ from those that the model was trained on, in words; empty if they do not."""


def draw_traces(request: TraceRequest) -> DrawnTraces:
    """Trace images and write the picture. Raises `GlimpseZooError`, as far as possible before anything is computed."""
    if request.files and request.indices:
        raise GlimpseZooError("expected images of the data (--index) or image files (--image), got both: leave one out")
    sets = Assignments.parse(request.sets, argument_names([request.model]), scopes=scopes())
    sets.check_all_declared({request.model: declared_settings(request.model)})
    path = _path(request)
    wanted = parse_condition(request.under, sets) if request.under else None
    _check_used(sets, wanted)
    rule = given_rule(sets, registry())
    chosen = choose_data([request.model], request.data, sets.of("data"), request.checkpoint)
    choice = choose_model(request.model, chosen.name, sets, request.checkpoint)
    name = choice.called
    card_task = choice.card.config.task.task() if choice.card else chosen.spec.task
    note, other = None, ""
    if request.files and card_task is not None:
        task = chosen.sized(card_task)
        subjects = _from_files(request.files, preprocessing_like(chosen.spec, chosen.settings, task))
    else:
        subjects, task, note = _from_data(request, chosen)
        about = declared_data_section(chosen.shown, task, chosen.recorded)
        other = departure(name, trained_on(choice.card.config) if choice.card else None, about)
    model = build_model(choice, task, checkpoint=request.checkpoint, seed=request.seed).to(request.device)
    marks = policy_marks(model.policy, upper_bound=model.follows.needs_labels)
    views = [Viewing(model, f"{name} ({marks[0]})" if marks else name, exit_rule=rule or Fixed(), seed=request.seed)]
    if wanted is not None:
        views.append(_changed(views[0], wanted, task, rule))
    rows = tuple(tuple(trace_image(viewing, subject) for viewing in views) for subject in subjects)
    _write(path, rows, force=request.force)
    return DrawnTraces(rows, path, note, other)


def _from_files(files: Sequence[Path], transform: Preprocessing) -> list[Subject]:
    """Image files as `predict` takes them."""
    fitted = [transform.fit(file) for file in files]
    return [Subject(file.name, image.pixels, None, noise_id(image.pixels)) for file, image in zip(files, fitted, strict=True)]


def _from_data(request: TraceRequest, chosen: DataChoice) -> tuple[list[Subject], Task, str | None]:
    if request.files:
        raise GlimpseZooError(f"--image expects a trained card or data of a known size, got {chosen.name!r}: use --index")
    folder = data_folder(request.data_dir)
    data = among(open_data(chosen.spec, chosen.name, request.split, chosen.settings, folder, on_bad_image="skip"), chosen.classes)
    subjects = []
    for index in request.indices or (0,):
        if not 0 <= index < len(data):
            raise GlimpseZooError(f"--index expects an image of the {len(data)} of {chosen.shown} {request.split} (from 0), got {index}")
        example = data[index]
        subjects.append(Subject(f"{chosen.shown} {request.split} {index}", example.image, example.label, example.id))
    return subjects, data.task, told(data)


def _changed(clean: Viewing, wanted: CorruptionWanted | AttackWanted, task: Task, rule: ExitRule | None) -> Viewing:
    """The same model and images under the condition that `--under` names."""
    if isinstance(wanted, AttackWanted):
        attack = built_attack(wanted, clean.model_name, clean.model, rule)
        settings = attack.settings
        name = f"{attack.name}, {budget_text(settings.norm, settings.eps)}"
        return replace(clean, condition=attack, condition_name=name)
    (severity,) = wanted.severities
    condition = Corruption(wanted.spec, severity, task.image_size, clean.seed)
    return replace(clean, condition=condition, condition_name=f"{condition.name} {severity}")


def _check_used(sets: Assignments, wanted: CorruptionWanted | AttackWanted | None) -> None:
    """Refuse settings that have no effect here. Raises `GlimpseZooError`."""
    attack = wanted if isinstance(wanted, AttackWanted) else None
    taken = {"data", EXITS, *([attack.spec.name, "attacks"] if attack else [])}
    for scope, values in sets.scopes.items():
        if values and scope not in taken:
            raise GlimpseZooError(f"--set {scope}.{next(iter(values))} expects {scope} to be named by --under: leave it out")
    known = type(attack.settings).model_fields if attack else {}
    for key in sets.of("attacks"):
        if key not in known:
            raise GlimpseZooError(
                f"--set attacks.{key} expects a setting of {attack.spec.name if attack else 'an attack'}: {did_you_mean(key, known)}"
            )


def _in_short(indices: Sequence[int]) -> str:
    """Image numbers for a file name; more than four are shortened to the first, the last and their count."""
    if len(indices) > 4:
        return f"{indices[0]}-to-{indices[-1]}-of-{len(indices)}"
    return "-".join(map(str, indices)) or "0"


def _path(request: TraceRequest) -> Path:
    """The file for the picture. Raises `GlimpseZooError` for an unknown ending and for a file that exists."""
    if request.output is None:
        what = "-".join(file.stem for file in request.files[:1]) or _in_short(request.indices)
        name = file_name(f"{request.model.rstrip('/').rpartition('/')[2]}-{what}")
        path = Path(f"{name}{'.html' if request.html else '.png'}")
    else:
        path = request.output
    if path.suffix.lower() not in ENDINGS or (request.html and path.suffix.lower() != ".html"):
        wanted = "a name that ends in .html" if request.html else f"a name that ends in {', '.join(ENDINGS)}"
        raise GlimpseZooError(f"--output expects {wanted}, got {path.name!r}: choose such a name")
    check_new(path, None, force=request.force)
    return path


def _write(path: Path, rows: Sequence[Sequence[Traced]], *, force: bool) -> None:
    ending = path.suffix.lower()
    if ending == ".html":
        content = flip_page(rows).encode()
    elif ending == ".gif":
        content = gif_file([framed(beside([panel(traced) for traced in row])) for row in rows])
    else:
        scene = sheet(rows)
        if ending == ".png" and 4 * scene.width * scene.height > MOST_PIXELS:
            raise GlimpseZooError(f"expected fewer images for one PNG, got {len(rows)}: choose fewer, or write .html")
        content = png_file(scene) if ending == ".png" else svg_file(scene).encode()
    write_file(path, content, force=force)


def check_new(path: Path, content: bytes | None, *, force: bool) -> None:
    """Refuse a path where something else than this content is, or, if the content is not known yet, something else than a file.

    A command that is repeated, because it was killed after its file was written, finds its own. Raises `GlimpseZooError`.
    """
    if force or not os.path.lexists(path) or (path.is_file() and (content is None or path.read_bytes() == content)):
        return
    raise GlimpseZooError(f"expected a new file, got {str(path)!r}, which exists: choose another --output, or --force")


def write_file(path: Path, content: bytes, *, force: bool) -> None:
    """Write a new file atomically. Raises `GlimpseZooError` if its folder cannot be written, and for a file with another content."""
    with output_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_new(path, content, force=force)
        write_whole(path, content)
