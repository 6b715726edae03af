"""Turn a released checkpoint into a card."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.loading import task_on
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.files import file_name, output_to, user_folder
from glimpsezoo.hashing import module_hash, sha256_of
from glimpsezoo.reports.readme import write_card_readme
from glimpsezoo.settings import Settings
from glimpsezoo.specs import ModelSpec, Task, load_string
from glimpsezoo.training.folder import locked, sweep_lock
from glimpsezoo.zoo.arguments import split_argument
from glimpsezoo.zoo.card_config import CONFIG, UNKNOWN, CardConfig, CardData, CardTask, card_name
from glimpsezoo.zoo.cards import Card, misfits, not_finite, write_card
from glimpsezoo.zoo.early import importer_of
from glimpsezoo.zoo.names import Assignments, data_spec
from glimpsezoo.zoo.own_data import changes, fitting
from glimpsezoo.zoo.plugins import registry, usable
from glimpsezoo.zoo.public_names import command_line, public_name


def import_checkpoint(model: str, checkpoint: Path, folder: Path, data: str | None, sets: tuple[str, ...], *, force: bool = False) -> Card:
    """Convert the checkpoint, check that its tensors fit the model, and write the card.

    data: the data set that the weights were trained on, whose class names the card takes. sets: `--set` texts, of the model, and as
    `data.KEY` of the data. Raises `GlimpseZooError`.
    """
    if (folder / CONFIG).exists() and not force:
        sweep_lock(folder)
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force"
        )
    config, built = _converted(model, checkpoint, card_name(folder), data, sets, trained=True)
    with locked(folder), output_to(folder):
        return write_card(folder, config, built, beside=write_card_readme)


def _converted(
    model: str, checkpoint: Path, name: str, data: str | None, sets: tuple[str, ...], *, trained: bool
) -> tuple[CardConfig, GlimpseModel[Any]]:
    """What the card will say, and the model with the checkpoint's weights. trained: whether the weights were trained on `data`."""
    spec = usable(registry().find(ModelSpec, model))
    convert = load_string(importer_of(model).importer)
    if not checkpoint.is_file():
        raise GlimpseZooError(f"expected a checkpoint file, got {str(checkpoint)!r}: give the path of a released checkpoint")
    given = Assignments.parse(sets, [model])
    schema = load_string(spec.config)
    given.check_all_declared({model: schema.model_fields})
    chosen = _parsed(given.of("data"), data)
    own = {spec.prefix_key: model.removeprefix(spec.name)} if spec.prefix else {}
    with _import_errors(checkpoint, model):
        settings, task, tensors, notes, *further = convert(checkpoint, {**given.of_model([model], schema.model_fields), **own})
    published, theirs = (*further, None, None)[:2]
    if data:
        task = _task_on(task, data, chosen)
    built = load_string(spec.model)(settings, task)
    _load(tensors, built, model, checkpoint)
    assert spec.provenance is not None
    config = CardConfig(
        name=name,
        model=model,
        plugin=spec.provenance.distribution,
        config=settings.model_dump(mode="json"),
        task=CardTask.model_validate(vars(task)),
        data=_card_data(task, data, theirs or {}, chosen) if data and trained else CardData(name=UNKNOWN),
        weights=None,
        license="unknown",
        trained={"imported_from": checkpoint.name, "command": command_line(), "notes": notes}
        | ({"published": published.model_dump(mode="json")} if published else {}),
    )
    return config, built


def _load(tensors: Mapping[str, Tensor], built: GlimpseModel[Any], model: str, checkpoint: Path) -> None:
    """Load the tensors into the model. Raises `GlimpseZooError` if they do not fit it, or are not finite."""
    if problems := misfits(tensors, built.state_dict()):
        raise GlimpseZooError(
            f"expected a checkpoint that fits {model}, got {checkpoint.name!r}, in which {problems[0]}: check its settings"
        )
    built.load_state_dict(tensors)
    if wrong := not_finite(built.state_dict()):
        raise GlimpseZooError(f"expected a checkpoint with finite weights, got {checkpoint.name!r}, in which {wrong[0]}: give another file")


def import_for_models(models: Sequence[str], checkpoint: Path, data: str | None) -> tuple[Path, tuple[str, ...]]:
    """The card of a file that `--checkpoint` names, in the user's folder, and the notes of its import, if that had to be done.

    models: the model arguments of the command, which must be one. data: what the command measures, which names the classes and may be
    other data than the file was trained on. Raises `GlimpseZooError`.
    """
    if len(models) != 1:
        raise GlimpseZooError(f"--checkpoint expects one model with a file of weights, got {' '.join(models)}: name the one whose it is")
    model = split_argument(models[0]).name
    parts = (_import_id(model, checkpoint, data), file_name(model), *([file_name(public_name(data))] if data else []))
    folder = user_folder() / "imported" / "-".join(parts) / checkpoint.stem
    if (folder / CONFIG).is_file():
        return folder, ()
    config, built = _converted(model, checkpoint, card_name(folder), data, (), trained=False)
    with locked(folder, waits=True), output_to(folder):
        if not (folder / CONFIG).is_file():  # which another command may have written meanwhile
            write_card(folder, config, built, beside=write_card_readme)
    return folder, tuple(config.trained["notes"])


def _import_id(model: str, checkpoint: Path, data: str | None) -> str:
    """16 hex digits of what determines an import: the file, the plugin's code, and the classes of the data."""
    place = importer_of(model).importer
    load_string(place)  # only the code of a loaded module is hashed
    declared = _declared(data, 3, {}) if data else None  # the classes do not depend on the channels
    content = [sha256_of(checkpoint), module_hash(place.partition(":")[0].partition(".")[0]), declared and declared.classes]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@contextmanager
def _import_errors(checkpoint: Path, model: str) -> Iterator[None]:
    """Turn any error of a plugin's importer into one line about the file. Raises `GlimpseZooError`."""
    try:
        yield
    except GlimpseZooError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error):.120}"
        raise GlimpseZooError(
            f"expected a checkpoint of {model}, got {checkpoint.name!r}, which its importer cannot read ({why}): give another file"
        ) from error


def _parsed(given: Mapping[str, Any], data: str | None) -> dict[str, Any]:
    """The user's settings of the data as values. Raises `GlimpseZooError` for a wrong one, and if no data are named."""
    if not given:
        return {}
    if data is None:
        raise GlimpseZooError(
            f"--set data.{next(iter(given))} expects the data that the weights were trained on, got none: add --data NAME"
        )
    return load_string(data_spec(data).config).parse(given, owner="data").model_dump(mode="json", include=set(given))


def _task_on(task: Task, data: str, chosen: Mapping[str, Any]) -> Task:
    """The task with the class names of `data`, and with its image size if the user chose one (`chosen`: settings of the data).

    Raises `GlimpseZooError` if the number of classes or channels differs. Classes of a folder are in alphabetical order, as torchvision's
    ImageFolder and timm number them.
    """
    declared = _declared(data, task.channels, chosen)
    side = chosen.get("size")
    if "size" in chosen and (declared or side):
        task = replace(task, image_size=declared.image_size if declared else (side, side))
    if declared is None:
        return task
    if len(declared.classes) != len(task.classes):
        raise GlimpseZooError(
            f"--data expects data with the checkpoint's {len(task.classes)} classes, got {data} with {len(declared.classes)}: "
            "name its own data"
        )
    if declared.channels != task.channels:
        raise GlimpseZooError(
            f"--data expects data with the checkpoint's {task.channels} channel(s), got {data} with {declared.channels}: name its own data"
        )
    return replace(task, classes=declared.classes)


def _declared(data: str, channels: int, chosen: Mapping[str, Any]) -> Task | None:
    """The task on the data with the user's settings, if they declare one. Data on this machine are taken in as many channels."""
    spec = data_spec(data)
    return task_on(spec, data, {**({"channels": channels} if spec.local else {}), **chosen})


def _card_data(task: Task, data: str, theirs: Mapping[str, Any], chosen: Mapping[str, Any]) -> CardData:
    """The data of the card: with what fits the task, the authors' settings (`theirs`) that the data support, and the user's (`chosen`)."""
    spec = data_spec(data)
    schema: type[Settings] = load_string(spec.config)
    own = {key: value for key, value in theirs.items() if changes(schema, key, value)}
    return CardData(name=public_name(data), settings={**fitting(spec, task), **own, **chosen})
