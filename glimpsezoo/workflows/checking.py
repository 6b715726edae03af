"""From a name to the findings of the conformance suite."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.cards import find_card
from glimpsezoo.data.base import BadImageError
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import open_data
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.own_data import DEFAULT_DATA, DataChoice, choose_data
from glimpsezoo.resolve import Assignments, argument_names, build_model, choose_model, data_folder, data_spec, declared_settings
from glimpsezoo.specs import Task
from glimpsezoo.testing import IMAGES, Case, Finding, check_rule, rules


def check(
    name: str, data: str | None = None, sets: tuple[str, ...] = (), *, data_dir: str | None = None, seed: int = 0
) -> Iterator[Finding]:
    """What every rule finds of a card, or of a model with untrained weights that `seed` decides, rule by rule.

    data: a data set, some of whose calibration images are looked at; by default images are made up, for the task of the card or of the
    digits. data_dir: where it is read from. sets: `--set` texts. Raises `GlimpseZooError` for names and settings that are wrong, before
    the first rule.
    """
    given = Assignments.parse(sets, argument_names([name]))
    given.check_all_declared({name: declared_settings(name)})
    named = find_card(name)
    if data is None and given.of("data"):
        raise GlimpseZooError("--set data.KEY expects data that it is for, got none: name them by --data")
    if data is None and data_dir is not None:
        raise GlimpseZooError("--data-dir expects data to read from it, got none: name them by --data")
    task, images = named.config.task.task() if named else data_spec(DEFAULT_DATA).task, None
    if data:
        task, images = _calibration(choose_data([name], data, given.of("data"), None if named else "none"), data_dir)
    assert task is not None  # the digits declare theirs
    choice = choose_model(name, data or (named.config.data.name if named else DEFAULT_DATA), given, None if named else "none")
    model = build_model(choice, task, seed=seed)
    case = Case.of(model, images, choice.card)
    return (check_rule(rule, case) for rule in rules())


def _calibration(data: DataChoice, data_dir: str | None) -> tuple[Task, Float[Tensor, "B C H W"]]:
    """The task of a data set, and some images of its calibration split. Raises `GlimpseZooError` if none of them can be read."""
    opened = limited(open_data(data.spec, data.name, "calibration", data.settings, data_folder(data_dir)), IMAGES)
    examples = [example for example in opened.examples_at(range(len(opened))) if not isinstance(example, BadImageError)]
    if not examples:
        raise GlimpseZooError(
            f"expected images that can be read, got none in the calibration split of {data.name!r}: see what is wrong with it"
        )
    return opened.task, torch.stack([example.image for example in examples])
