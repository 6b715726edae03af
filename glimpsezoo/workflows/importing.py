"""From a released checkpoint to a card."""

from dataclasses import replace
from pathlib import Path

from glimpsezoo.cards import CONFIG, Card, CardConfig, CardTask, write_card
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.plugins import registry
from glimpsezoo.reports import write_card_readme
from glimpsezoo.resolve import Assignments, data_spec
from glimpsezoo.specs import ImporterSpec, ModelSpec, Task, load_string
from glimpsezoo.workflows.training import command_line


def import_checkpoint(model: str, checkpoint: Path, folder: Path, data: str | None, sets: tuple[str, ...], *, force: bool = False) -> Card:
    """Convert, check that the tensors fit the model, and only then write the card.

    data: the set that the weights were trained on, whose class names the card takes. Raises `GlimpseZooError`.
    """
    spec = registry().find(ModelSpec, model)
    convert = load_string(registry().find(ImporterSpec, model).importer)
    if not checkpoint.is_file():
        raise GlimpseZooError(f"expected a checkpoint file, got {str(checkpoint)!r}, which is none")
    if (folder / CONFIG).exists() and not force:
        raise GlimpseZooError(f"{folder} holds a card: choose another --output, or --force to overwrite it")
    given = Assignments.parse(sets, [model])
    schema = load_string(spec.config)
    given.check_all_declared({model: schema.model_fields})
    settings, task, tensors, notes = convert(checkpoint, given.of_model(model, schema.model_fields))
    if data:
        task = _named_classes(task, data)
    built = load_string(spec.model)(settings, task)
    built.load_state_dict(tensors)
    config = CardConfig(
        name=folder.name,
        model=model,
        plugin=spec.provenance.distribution if spec.provenance else "?",
        config=settings.model_dump(mode="json"),
        task=CardTask.model_validate(vars(task)),
        data={"name": data or "unknown"},
        weights=None,
        license="unknown",
        trained={"imported_from": checkpoint.name, "command": command_line(), "notes": notes},
    )
    try:
        card = write_card(folder, config, built)
    except OSError as error:
        raise GlimpseZooError(f"cannot write to the output folder {folder}: {error.strerror}") from None
    write_card_readme(card)
    return card


def _named_classes(task: Task, data: str) -> Task:
    """The task with the class names of `data`, whose number must be the checkpoint's."""
    declared = data_spec(data).task
    if declared is None:
        return task
    if len(declared.classes) != len(task.classes):
        raise GlimpseZooError(
            f"the checkpoint tells {len(task.classes)} classes apart, {data} has {len(declared.classes)}: give its own --data"
        )
    return replace(task, classes=declared.classes)
