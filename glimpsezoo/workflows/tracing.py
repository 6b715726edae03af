"""From what a user asks to see to traced images, and to the file that shows them."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from glimpsezoo.cards import file_name
from glimpsezoo.corruptions.condition import Corruption
from glimpsezoo.data.config import OpenSettings
from glimpsezoo.data.images import fitted, to_tensor
from glimpsezoo.data.loading import open_data
from glimpsezoo.data.opening import told
from glimpsezoo.data.pixels import MODES, Decoding, decoded
from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.exits import ExitRule, Fixed
from glimpsezoo.files import write_whole
from glimpsezoo.measures import AnytimeSettings, AttackWanted, CorruptionWanted, parse_condition, scopes
from glimpsezoo.own_data import DataChoice, choose_data, trained_on
from glimpsezoo.pages.flip import flip_page
from glimpsezoo.pictures.layout import panel, sheet
from glimpsezoo.pictures.raster import gif_file, png_file
from glimpsezoo.pictures.scene import beside, framed
from glimpsezoo.pictures.svg import svg_file
from glimpsezoo.pictures.traced import Subject, Traced, Viewing, trace_image
from glimpsezoo.plugins import registry
from glimpsezoo.records import departure
from glimpsezoo.resolve import (
    Assignments,
    argument_names,
    build_model,
    choose_model,
    data_folder,
    declared_settings,
)
from glimpsezoo.sections import declared_data_section
from glimpsezoo.specs import ExitRuleSpec, Task, load_string
from glimpsezoo.tables import eps_text
from glimpsezoo.workflows.output import unwritable
from glimpsezoo.workflows.planning import built_attack

ENDINGS = (".png", ".svg", ".gif", ".html")
MOST_PIXELS = 40_000_000  # of a picture: beyond it, nobody can look at it


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """What a user asks to be shown; the fields are the options of `glimpsezoo trace`.

    data: None is the card's own. Neither indices nor files: the first image.
    """

    model: str
    device: torch.device
    data: str | None = None
    data_dir: str | None = None
    split: str = "test"
    indices: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    under: str | None = None
    sets: tuple[str, ...] = ()
    checkpoint: str | None = None
    seed: int = 0
    html: bool = False
    output: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class Shown:
    """What was traced, a row an image and in it one entry a condition, and the file that shows it.

    note: what was inferred of the data. departure: what the data have of their own beside those that the model was trained on; '' if
    nothing.
    """

    rows: tuple[tuple[Traced, ...], ...] = field(repr=False)
    path: Path
    note: str | None = None
    departure: str = ""


def trace(request: TraceRequest) -> Shown:
    """Trace images and write the picture. Raises `GlimpseZooError`, before anything is computed where that can be seen."""
    if request.files and request.indices:
        raise GlimpseZooError("expected images of the data (--index) or image files (--image), got both: leave one out")
    sets = Assignments.parse(request.sets, argument_names([request.model]), scopes=scopes())
    sets.check_all_declared({request.model: declared_settings(request.model)})
    path = _path(request)
    wanted = parse_condition(request.under, sets) if request.under else None
    _check_used(sets, wanted)
    rule = _exit_rule(sets)
    chosen = choose_data([request.model], request.data, sets.of("data"), request.checkpoint)
    choice = choose_model(request.model, chosen.name, sets, request.checkpoint)
    name = choice.card.called if choice.card else choice.full_name
    card_task = choice.card.config.task.task() if choice.card else chosen.spec.task
    note, other = None, ""
    if request.files and card_task is not None:
        subjects, task = _from_files(request.files, card_task, _decoding(chosen)), card_task
    else:
        subjects, task, note = _from_data(request, chosen)
        about = declared_data_section(chosen.shown, task, chosen.recorded)
        other = departure(name, trained_on(choice.card.config) if choice.card else None, about)
    model = build_model(choice, task, checkpoint=request.checkpoint, seed=request.seed).to(request.device)
    views = [Viewing(model, name, exit_rule=rule or Fixed(), seed=request.seed)]
    if wanted is not None:
        views.append(_changed(views[0], wanted, task, rule))
    rows = tuple(tuple(trace_image(viewing, subject) for viewing in views) for subject in subjects)
    _write(path, rows)
    return Shown(rows, path, note, other)


def _from_files(files: Sequence[Path], task: Task, decoding: Decoding) -> list[Subject]:
    """Image files at the size of the task. Their noise belongs to their content."""
    subjects = []
    for file in files:
        if task.channels not in MODES:
            raise GlimpseZooError(f"--image expects a model for grey or RGB images, got one for {task.channels} channels: use --index")
        try:
            content = file.read_bytes()
            pixels = to_tensor(fitted(decoded(content, task.channels, decoding).image, task.image_size, 1.0))
        except Exception as error:  # Pillow's decoders raise anything from OSError to struct.error
            raise GlimpseZooError(f"--image expects an image file, got {str(file)!r} ({one_line(error):.120}): name another") from None
        subjects.append(Subject(file.name, pixels, None, zlib.crc32(content)))
    return subjects


def _decoding(chosen: DataChoice) -> Decoding:
    """How image files are read: as the settings of the data say, where they say it, and else upright and over black."""
    config = load_string(chosen.spec.config).parse(chosen.settings, owner="data")
    config = config if isinstance(config, OpenSettings) else OpenSettings.parse({}, owner="data")
    return Decoding(orientation=config.orientation, background=config.background)


def _from_data(request: TraceRequest, chosen: DataChoice) -> tuple[list[Subject], Task, str | None]:
    if request.files:
        raise GlimpseZooError(f"--image expects a trained card or data of a known size, got {chosen.name!r}: use --index")
    folder = data_folder(request.data_dir)
    data = open_data(chosen.spec, chosen.name, request.split, chosen.settings, folder, on_bad_image="skip")
    subjects = []
    for index in request.indices or (0,):
        if not 0 <= index < len(data):
            raise GlimpseZooError(f"--index expects an image of the {len(data)} of {chosen.shown} {request.split} (from 0), got {index}")
        example = data[index]
        subjects.append(Subject(f"{chosen.shown} {request.split} {index}", example.image, example.label, example.id))
    return subjects, data.task, told(data)


def _changed(clean: Viewing, wanted: CorruptionWanted | AttackWanted, task: Task, rule: ExitRule | None) -> Viewing:
    """The same under what `--under` names."""
    if isinstance(wanted, AttackWanted):
        attack = built_attack(wanted, clean.model_name, clean.model, rule)
        settings = attack.settings
        name = f"{attack.name}, {settings.norm} {eps_text(settings.eps)}"
        return replace(clean, condition=attack, condition_name=name)
    (severity,) = wanted.severities
    condition = Corruption(wanted.spec, severity, task.image_size, clean.seed)
    return replace(clean, condition=condition, condition_name=f"{condition.name} {severity}")


def _exit_rule(sets: Assignments) -> ExitRule | None:
    """`--set anytime.threshold=...` under `--set anytime.rule=...` (confidence)."""
    given = sets.of("anytime")
    settings = AnytimeSettings.parse(given, owner="anytime")
    if not given:
        return None
    others = [key for key in given if key not in {"rule", "threshold"}]
    if others or settings.threshold is None:
        got = f"anytime.{others[0]}" if others else "anytime.rule alone"
        raise GlimpseZooError(f"trace expects the threshold of an exit rule, got {got}: give --set anytime.threshold=0.9, say")
    return load_string(registry().find(ExitRuleSpec, settings.rule).rule)(settings.threshold)


def _check_used(sets: Assignments, wanted: CorruptionWanted | AttackWanted | None) -> None:
    """A setting that nothing here takes is a mistake."""
    attack = wanted if isinstance(wanted, AttackWanted) else None
    taken = {"data", "anytime", *([attack.spec.name, "attacks"] if attack else [])}
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
    """Several images by number, for a file's name; many of them by the first, the last and how many they are."""
    if len(indices) > 4:
        return f"{indices[0]}-to-{indices[-1]}-of-{len(indices)}"
    return "-".join(map(str, indices)) or "0"


def _path(request: TraceRequest) -> Path:
    """Where the picture goes."""
    if request.output is None:
        what = "-".join(file.stem for file in request.files[:1]) or _in_short(request.indices)
        path = Path(f"{file_name(request.model.rstrip('/').rpartition('/')[2])}-{what}{'.html' if request.html else '.png'}")
    else:
        path = request.output
    if path.suffix.lower() not in ENDINGS or (request.html and path.suffix.lower() != ".html"):
        wanted = "a name that ends in .html" if request.html else f"a name that ends in {', '.join(ENDINGS)}"
        raise GlimpseZooError(f"--output expects {wanted}, got {path.name!r}: name the file so")
    if path.exists() and not request.force:
        raise GlimpseZooError(f"expected a new file, got {str(path)!r}, which is there: choose another --output, or --force")
    return path


def _write(path: Path, rows: Sequence[Sequence[Traced]]) -> None:
    ending = path.suffix.lower()
    if ending == ".html":
        content = flip_page(rows).encode()
    elif ending == ".gif":
        content = gif_file([framed(beside([panel(traced) for traced in row])) for row in rows])
    else:
        scene = sheet(rows)
        if ending == ".png" and 4 * scene.width * scene.height > MOST_PIXELS:
            raise GlimpseZooError(f"expected fewer images for one PNG, got {len(rows)}: take some of them, or write .html")
        content = png_file(scene) if ending == ".png" else svg_file(scene).encode()
    write_file(path, content)


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole. Raises `GlimpseZooError` if its folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise unwritable(path.parent, error) from None
