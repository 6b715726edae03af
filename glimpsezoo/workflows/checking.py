"""Run the conformance suite on a model or a card that is given by name."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.core.policies import check_without_labels
from glimpsezoo.data.among import among
from glimpsezoo.data.base import BadImageError
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import open_data
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Task
from glimpsezoo.testing import IMAGES, Case, Finding, check_rule, rules
from glimpsezoo.testing.learning import training_of
from glimpsezoo.zoo.arguments import argument_card
from glimpsezoo.zoo.names import Assignments, argument_names, build_model, choose_model, data_folder, data_spec, declared_settings
from glimpsezoo.zoo.own_data import DEFAULT_DATA, DataChoice, choose_data


def findings_of(
    name: str, data: str | None = None, sets: tuple[str, ...] = (), *, data_dir: str | None = None, seed: int = 0
) -> Iterator[Finding]:
    """Check a card, or an untrained model with weights from `seed`, and yield the finding of each rule.

    data: the data set with the calibration images to check on; by default, images are generated for the task of the card or of the digits.
    data_dir: the folder to read the data from. sets: `--set` texts. Raises `GlimpseZooError` for a wrong name or setting, before the first
    rule runs.
    """
    given = Assignments.parse(sets, argument_names([name]))
    given.check_all_declared({name: declared_settings(name)})
    named = argument_card(name)
    if data is None and given.of("data"):
        raise GlimpseZooError("--set data.KEY expects a data set, got none: name one by --data")
    if data is None and data_dir is not None:
        raise GlimpseZooError("--data-dir expects a data set, got none: name one by --data")
    task, images = named.config.task.task() if named else data_spec(DEFAULT_DATA).task, None
    if data:
        task, images = _calibration(choose_data([name], data, given.of("data"), None if named else "none"), data_dir)
    assert task is not None  # the digits declare theirs
    choice = choose_model(name, data or (named.config.data.name if named else DEFAULT_DATA), given, None if named else "none")
    model = build_model(choice, task, seed=seed)
    check_without_labels(model, "check", "choose another policy")
    case = Case.of(model, images, choice.card, training_of(choice.spec, name))
    return (check_rule(rule, case) for rule in rules())


def _calibration(data: DataChoice, data_dir: str | None) -> tuple[Task, Float[Tensor, "B C H W"]]:
    """The task of a data set and some images of its calibration split. Raises `GlimpseZooError` if no image can be read."""
    whole = among(open_data(data.spec, data.name, "calibration", data.settings, data_folder(data_dir)), data.classes)
    opened = limited(whole, IMAGES)
    examples = [example for example in opened.examples_at(range(len(opened))) if not isinstance(example, BadImageError)]
    if not examples:
        raise GlimpseZooError(f"expected images that can be read, got none in the calibration split of {data.name!r}: check its files")
    return opened.task, torch.stack([example.image for example in examples])
