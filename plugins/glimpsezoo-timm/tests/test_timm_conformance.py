"""A timm model keeps every rule of the conformance suite."""

import pytest

from glimpsezoo import Task
from glimpsezoo.testing import conformance, rules

SMALL = Task((32, 32), 3, ("a", "b", "c"))


@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit"])
def test_it_conforms(name: str, rule: str) -> None:
    conformance(name, rule, task=SMALL)
