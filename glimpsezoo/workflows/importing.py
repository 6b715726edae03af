"""Turn a released checkpoint into a card."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from glimpsezoo.data.config import SizedSettings
from glimpsezoo.data.loading import task_on
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.files import file_name, output_to, user_folder
from glimpsezoo.reports.readme import write_card_readme
from glimpsezoo.specs import ModelSpec, Task, load_string
from glimpsezoo.training.folder import locked, sweep_lock
from glimpsezoo.zoo.arguments import split_argument
from glimpsezoo.zoo.card_config import CONFIG, UNKNOWN, CardConfig, CardData, CardTask
from glimpsezoo.zoo.cards import Card, misfits, write_card
from glimpsezoo.zoo.early import importer_of
from glimpsezoo.zoo.hub import sha256_of
from glimpsezoo.zoo.names import Assignments, data_spec
from glimpsezoo.zoo.plugins import registry, usable
from glimpsezoo.zoo.public_names import command_line, public_name


def import_checkpoint(
    model: str, checkpoint: Path, folder: Path, data: str | None, sets: tuple[str, ...], *, force: bool = False, trained: bool = True
) -> Card:
    """Convert the checkpoint, check that its tensors fit the model, and write the card.

    data: a data set whose class names the card takes; if `trained`, the one that the weights were trained on. Raises `GlimpseZooError`.
    """
    spec = usable(registry().find(ModelSpec, model))
    convert = load_string(importer_of(model).importer)
    if not checkpoint.is_file():
        raise GlimpseZooError(f"expected a checkpoint file, got {str(checkpoint)!r}: give the path of a released checkpoint")
    if (folder / CONFIG).exists() and not force:
        sweep_lock(folder)
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force"
        )
    given = Assignments.parse(sets, [model], scopes=())
    schema = load_string(spec.config)
    given.check_all_declared({model: schema.model_fields})
    own = {spec.prefix_key: model.removeprefix(spec.name)} if spec.prefix else {}
    with _import_errors(checkpoint, model):
        settings, task, tensors, notes, *reported = convert(checkpoint, {**given.of_model([model], schema.model_fields), **own})
    data_settings: dict[str, Any] = {}
    if data:
        task, data_settings = _named_classes(task, data), _data_settings(task, data) if trained else {}
    built = load_string(spec.model)(settings, task)
    problems = misfits(tensors, built.state_dict())
    if problems:
        raise GlimpseZooError(
            f"expected a checkpoint that fits {model}, got {checkpoint.name!r}, in which {problems[0]}: check its settings"
        )
    built.load_state_dict(tensors)
    assert spec.provenance is not None
    config = CardConfig(
        name=folder.resolve().name,
        model=model,
        plugin=spec.provenance.distribution,
        config=settings.model_dump(mode="json"),
        task=CardTask.model_validate(vars(task)),
        data=CardData(name=public_name(data) if data and trained else UNKNOWN, settings=data_settings),
        weights=None,
        license="unknown",
        trained={"imported_from": checkpoint.name, "command": command_line(), "notes": notes}
        | ({"published": reported[0].model_dump(mode="json")} if reported else {}),
    )
    with locked(folder), output_to(folder):
        return write_card(folder, config, built, beside=write_card_readme)


def import_for_models(models: Sequence[str], checkpoint: Path, data: str | None) -> tuple[Path, tuple[str, ...]]:
    """The card of a file that `--checkpoint` names, in the user's folder, and the notes of its import, if that had to be done.

    models: the model arguments of the command, which must be one. data: what the command measures, which names the classes and may be
    other data than the file was trained on. Raises `GlimpseZooError`.
    """
    if len(models) != 1:
        raise GlimpseZooError(f"--checkpoint expects one model with a file of weights, got {' '.join(models)}: name the one whose it is")
    model = split_argument(models[0]).name
    parts = (sha256_of(checkpoint)[:16], file_name(model), *([file_name(public_name(data))] if data else []))
    folder = user_folder() / "imported" / "-".join(parts) / checkpoint.stem
    if (folder / CONFIG).is_file():
        return folder, ()
    card = import_checkpoint(model, checkpoint, folder, data, (), trained=False)
    return folder, tuple(card.config.trained["notes"])


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


def _named_classes(task: Task, data: str) -> Task:
    """The task with the class names of `data`. Raises `GlimpseZooError` if the number of classes or channels differs.

    Those of a folder are in alphabetical order, as torchvision's ImageFolder and timm number them.
    """
    spec = data_spec(data)
    declared = task_on(spec, data, {"channels": task.channels} if spec.local else {})
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


def _data_settings(task: Task, data: str) -> dict[str, Any]:
    """The image size of the task as a setting of `data`, if it is not the usual one and they support it."""
    spec = data_spec(data)
    height, width = task.image_size
    known = issubclass(load_string(spec.config), SizedSettings) and height == width
    return {"size": height} if known and spec.task and spec.task.image_size != task.image_size else {}
