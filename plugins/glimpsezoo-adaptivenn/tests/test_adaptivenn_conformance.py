"""AdaptiveNN keeps every rule of the conformance suite, with predicted and drawn places, and where images finish early."""

from typing import Any

import pytest

from glimpsezoo import Task
from glimpsezoo.testing import conformance, rules

WIDE = Task((40, 48), 1, ("a", "b", "c"), mean=(0.4,), std=(0.3,))
TINY = {"glimpses": 2, "patch": 16, "token": 4, "width": 16, "depth": 3, "head_depth": 1, "attention_heads": 2, "locator_hidden": 16}
CASES: dict[str, dict[str, Any]] = {
    "predicted": TINY,
    "drawn, with exits": {**TINY, "decide": "sample", "exits": (-0.4, -0.4)},
}


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("case", CASES)
def test_it_conforms(case: str, rule: str) -> None:
    conformance("adaptivenn", rule, task=WIDE, **CASES[case])
