"""MGNet and its baseline keep every rule of the conformance suite."""

from typing import Any

import pytest

from glimpsezoo import Task
from glimpsezoo.testing import conformance, rules

SMALL = Task((24, 24), 1, ("a", "b", "c"), mean=(0.4,), std=(0.3,))
MGNET = {"backbone": "cnn4", "downsample": 2, "glimpses": 3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn4": ("cnn4", {}),
    "mgnet": ("mgnet", MGNET),
    "mgnet random": ("mgnet", {**MGNET, "policy": "random"}),
}


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("case", CASES)
def test_it_conforms(case: str, rule: str) -> None:
    name, settings = CASES[case]
    conformance(name, rule, task=SMALL, **settings)


@pytest.mark.parametrize("name", ["mgnet.digits", "cnn4.digits"])
def test_the_card_and_its_weights_agree(name: str) -> None:
    assert conformance(name, "card").numbers["measured"] == "yes"
