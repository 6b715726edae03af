"""The pyramid models and their baselines keep every rule of the conformance suite."""

from typing import Any

import pytest

from glimpsezoo import Task
from glimpsezoo.testing import conformance, rules

SMALL = Task((28, 28), 1, ("a", "b", "c"), mean=(0.4,), std=(0.3,))
THREE_LEVELS = Task((56, 56), 1, ("a", "b", "c"), mean=(0.4,), std=(0.3,))
CASES: dict[str, tuple[str, Task, dict[str, Any]]] = {
    **{f"pyramid-{name}": (f"pyramid-{name}", SMALL, {}) for name in ("m2", "m3", "bl1", "bl2", "bl3")},
    "pyramid-m1": ("pyramid-m1", THREE_LEVELS, {}),
    "pyramid-m1 mode": ("pyramid-m1", SMALL, {"decide": "mode"}),
    "pyramid-m1 random": ("pyramid-m1", SMALL, {"policy": "random"}),
}


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("case", CASES)
def test_it_conforms(case: str, rule: str) -> None:
    name, task, settings = CASES[case]
    conformance(name, rule, task=task, **settings)


def test_the_card_and_its_weights_agree() -> None:
    assert conformance("pyramid-m3.digits", "card").numbers["measured"] == "yes"
