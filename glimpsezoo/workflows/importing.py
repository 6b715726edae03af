"""From a released checkpoint to a card."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from glimpsezoo.cards import CONFIG, UNKNOWN, Card, CardConfig, CardData, CardTask, misfits, write_card
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.plugins import registry
from glimpsezoo.reports import write_card_readme
from glimpsezoo.resolve import Assignments, data_spec, public_name
from glimpsezoo.specs import ImporterSpec, ModelSpec, Task, load_string
from glimpsezoo.workflows.output import command_line, unwritable


def import_checkpoint(model: str, checkpoint: Path, folder: Path, data: str | None, sets: tuple[str, ...], *, force: bool = False) -> Card:
    """Convert, check that the tensors fit the model, and only then write the card.

    data: the set that the weights were trained on, whose class names the card takes. Raises `GlimpseZooError`.
    """
    spec = registry().find(ModelSpec, model)
    convert = load_string(registry().find(ImporterSpec, model).importer)
    if not checkpoint.is_file():
        raise GlimpseZooError(f"expected a checkpoint file, got {str(checkpoint)!r}, which is none: give the path of a released checkpoint")
    if (folder / CONFIG).exists() and not force:
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force"
        )
    given = Assignments.parse(sets, [model], scopes=())
    schema = load_string(spec.config)
    given.check_all_declared({model: schema.model_fields})
    own = {spec.prefix_key: model.removeprefix(spec.name)} if spec.prefix else {}
    with _understood(checkpoint, model):
        settings, task, tensors, notes = convert(checkpoint, {**given.of_model([model], schema.model_fields), **own})
    if data:
        task = _named_classes(task, data)
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
        data=CardData(name=public_name(data) if data else UNKNOWN),
        weights=None,
        license="unknown",
        trained={"imported_from": checkpoint.name, "command": command_line(), "notes": notes},
    )
    try:
        card = write_card(folder, config, built)
        write_card_readme(card)
    except OSError as error:
        raise unwritable(folder, error) from None
    return card


@contextmanager
def _understood(checkpoint: Path, model: str) -> Iterator[None]:
    """Whatever an importer of a plugin makes of a file that it did not foresee, as one line. Raises `GlimpseZooError`."""
    try:
        yield
    except GlimpseZooError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error):.120}"
        raise GlimpseZooError(
            f"expected a checkpoint of {model}, got {checkpoint.name!r}, which its importer cannot read ({why}): give another"
        ) from error


def _named_classes(task: Task, data: str) -> Task:
    """The task with the class names of `data`, whose number must be the checkpoint's."""
    declared = data_spec(data).task
    if declared is None:
        return task
    if len(declared.classes) != len(task.classes):
        raise GlimpseZooError(
            f"the checkpoint tells {len(task.classes)} classes apart, got --data {data} with {len(declared.classes)}: name its own data"
        )
    if declared.channels != task.channels:
        raise GlimpseZooError(
            f"the checkpoint takes images of {task.channels} channel(s), got --data {data} with {declared.channels}: name its own data"
        )
    return replace(task, classes=declared.classes)
