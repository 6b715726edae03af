"""The glimpse model and its baselines keep every rule of the conformance suite."""

from typing import Any

import pytest

from glimpsezoo import Task
from glimpsezoo.testing import conformance, rules

# Different height and width, so that a mix-up is detected.
SMALL = Task(image_size=(20, 25), channels=2, classes=("a", "b", "c"), mean=(0.4, 0.6), std=(0.3, 0.2))
RANZATO = {"glimpses": 3, "low_size": 5, "patch": 4, "scales": 2, "hidden": 8}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ranzato": ("ranzato", RANZATO),
    "ranzato parallel and shared": ("ranzato", {**RANZATO, "parallel": True, "shared": True}),
    "ranzato random": ("ranzato", {**RANZATO, "policy": "random"}),
    "ranzato-fc": ("ranzato-fc", {"hidden": 8}),
    "ranzato-fc low": ("ranzato-fc", {"hidden": 8, "low_size": 5}),
    "ranzato-conv": ("ranzato-conv", {"hidden": 8, "filters": 4}),
}


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("case", CASES)
def test_it_conforms(case: str, rule: str) -> None:
    name, settings = CASES[case]
    conformance(name, rule, task=SMALL, **settings)


def test_the_card_and_its_weights_agree() -> None:
    assert conformance("ranzato.digits", "card").numbers["measured"] == "yes"
