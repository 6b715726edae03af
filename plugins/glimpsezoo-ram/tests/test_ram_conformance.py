"""RAM, DRAM and the baselines keep every rule of the conformance suite."""

from typing import Any

import pytest

from glimpsezoo import Task
from glimpsezoo.testing import conformance, rules

# Different height and width, so that a mix-up is detected.
SMALL = Task(image_size=(20, 25), channels=2, classes=("a", "b", "c"), mean=(0.4, 0.6), std=(0.3, 0.2))
RAM = {"glimpses": 3, "patch": 4, "scales": 2}
DRAM = {"glimpses": 3, "patch": 10, "coarse": 12, "filters": 2, "width": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ram": ("ram", RAM),
    "ram mode": ("ram", {**RAM, "decide": "mode"}),
    "ram three runs, linear": ("ram", {**RAM, "evaluations": 3, "locator_hidden": 0, "patch": 5, "scales": 1}),
    "ram random": ("ram", {**RAM, "policy": "random"}),
    "ram scan": ("ram", {**RAM, "policy": "scan"}),
    "ram saliency, two runs": ("ram", {**RAM, "policy": "saliency", "evaluations": 2}),
    "dram": ("dram", DRAM),
    "dram two runs": ("dram", {**DRAM, "evaluations": 2}),
    "dram centre": ("dram", {**DRAM, "policy": "centre"}),
    "dram entropy": ("dram", {**DRAM, "policy": "entropy"}),
    "ram-fc": ("ram-fc", {"hidden": 8}),
    "ram-conv": ("ram-conv", {"hidden": 8, "filters": 4}),
}


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("case", CASES)
def test_it_conforms(case: str, rule: str) -> None:
    name, settings = CASES[case]
    conformance(name, rule, task=SMALL, **settings)
