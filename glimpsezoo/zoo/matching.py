"""`--set KEY=auto:MODEL`: the largest whole number for a setting at which a model costs no more MACs than MODEL.

So a feed-forward network gets the input size at which it costs what a glimpse model costs (`image_size=auto:mgnet`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Task
from glimpsezoo.zoo.arguments import argument_card, split_argument
from glimpsezoo.zoo.names import Assignments, build_model, card_for, choose_model, declared_settings

if TYPE_CHECKING:  # a command line is read without torch
    from glimpsezoo.core.protocol import GlimpseModel

AUTO = "auto:"
LARGEST = 4_096


def references(texts: Iterable[str]) -> list[str]:
    """The models that `KEY=auto:MODEL` texts refer to, whose settings `--set MODEL.KEY` may change."""
    found = [text.partition(f"={AUTO}")[2] for text in texts]
    return [split_argument(name).name for name in found if name]


def matched(
    values: Mapping[str, Any], model: str, sets: Assignments, data: str, find_task: Callable[[], Task]
) -> tuple[dict[str, Any], list[str]]:
    """The settings of `model` with a number for each that is `auto:MODEL`, and what was chosen, one line each.

    sets: the settings of the reference, which has those that `--set` gives to it or to all models. find_task: of the data, asked if it is
    needed. Raises `GlimpseZooError` if there is no such number.
    """
    found, said = dict(values), []
    for key, value in values.items():
        if is_auto(value) and key in declared_settings(model):
            reference, task = value.removeprefix(AUTO), find_task()
            wanted = _macs(_reference(reference, sets, data, task))
            plain = {other: each for other, each in found.items() if not is_auto(each)}
            size, macs = _largest(plain, key, model, data, task, wanted, reference)
            found[key] = size
            said.append(_said(key, size, model, macs, reference, wanted))
    return found, said


def is_auto(value: Any) -> bool:
    """Whether the value of a setting is `auto:MODEL`."""
    return isinstance(value, str) and value.startswith(AUTO)


def without_auto(sets: Assignments) -> Assignments:
    """The settings without those that are `auto:MODEL`."""
    scoped = {name: {key: value for key, value in values.items() if not is_auto(value)} for name, values in sets.scoped.items()}
    return replace(sets, scoped=scoped, shared={key: value for key, value in sets.shared.items() if not is_auto(value)})


def _said(key: str, size: int, model: str, macs: float, reference: str, wanted: float) -> str:
    from glimpsezoo.measures.text import macs_text

    return (
        f"{key}={size}: {model} costs {macs_text(macs)} MACs per image, and {reference} {macs_text(wanted)} (counted on images of noise); "
        "no larger number costs as little"
    )


def _reference(name: str, sets: Assignments, data: str, task: Task) -> "GlimpseModel[Any]":
    """The model to compare with: its card, at the size that it was trained for, or else untrained at the size of the data."""
    card = argument_card(name) or card_for(split_argument(name).name, data)
    choice = choose_model(name, data, without_auto(sets), None if card else "none")
    return build_model(choice, card.config.task.task() if card else task)


def _largest(values: Mapping[str, Any], key: str, model: str, data: str, task: Task, wanted: float, reference: str) -> tuple[int, float]:
    """The number for `key`, and the cost of the model with it."""

    @cache
    def cost(size: int) -> float | None:
        """None for a number that the model cannot have."""
        try:
            choice = choose_model(model, data, Assignments(scoped={model: {**values, key: size}}), "none")
            return _macs(build_model(choice, task))
        except GlimpseZooError:
            return None

    size = largest_within(cost, wanted, start=max(task.image_size))
    macs = cost(size) if size else None
    if macs is None:
        raise GlimpseZooError(
            f"expected a number for {key} at which {model} costs no more MACs than {reference} ({wanted:,.0f}), got none: "
            f"give {key} a number, or name a more costly model"
        )
    return size, macs


def largest_within(cost: Callable[[int], float | None], limit: float, *, start: int) -> int:
    """The largest number from 1 to `LARGEST` whose cost is at most `limit`, for a cost that does not fall; 0 if there is none.

    cost: None for a number that is not allowed; such numbers are left out.

    >>> largest_within(lambda size: size * size if size % 4 == 0 else None, 150.0, start=10)
    12
    """
    low, high, found, size = 0, LARGEST + 1, 0, min(start, LARGEST)
    while high - low > 1:
        allowed = next((each for each in range(size, low, -1) if cost(each) is not None), None)
        macs = cost(allowed) if allowed else None
        if allowed is None or macs is None:
            low = size
        elif macs <= limit:
            low, found = size, allowed
        else:
            high = allowed
        size = (low + high) // 2 if high <= LARGEST else max(1, min(2 * low, LARGEST))
    return found


def _macs(model: "GlimpseModel[Any]") -> float:
    from glimpsezoo.measures.flops import flops_of

    return flops_of(model).macs.mean
