"""CanViT keeps every rule of the conformance suite, on grey images and colour, with places that are drawn and with the whole scene."""

from typing import Any

import pytest

from glimpsezoo import Task
from glimpsezoo.testing import conformance, rules

pytest.importorskip("canvit_pytorch")

TINY = {"backbone": "tiny", "glimpse": 16, "glimpses": 2, "canvas": 4, "canvas_heads": 2, "canvas_head_dim": 16, "canvas_registers": 2}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "grey, coarse to fine": (1, TINY),
    "colour, random": (3, {**TINY, "policy": "random"}),
}


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("case", CASES)
def test_it_conforms(case: str, rule: str) -> None:
    channels, settings = CASES[case]
    conformance("canvit", rule, task=Task((40, 48), channels, ("a", "b", "c")), **settings)
