"""GFNet keeps every rule of the conformance suite, with either classifier, and with predicted and drawn places."""

from typing import Any

import pytest

from glimpsezoo import Task
from glimpsezoo.testing import conformance, rules

WIDE = Task((40, 48), 1, ("a", "b", "c"), mean=(0.4,), std=(0.3,))
TINY = {"backbone": "test_efficientnet", "patch": 16, "glimpses": 3, "hidden": 16, "locator_hidden": 16}
CASES: dict[str, dict[str, Any]] = {
    "gru": TINY,
    "concatenate, drawn": {**TINY, "classifier": "concatenate", "locator": "conv", "decide": "sample"},
}


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("case", CASES)
def test_it_conforms(case: str, rule: str) -> None:
    conformance("gfnet", rule, task=WIDE, **CASES[case])
