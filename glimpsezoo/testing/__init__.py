"""The conformance suite: does a plugin's model keep the promises that the harness builds on?

In a plugin's own tests, by the names that users type:

    import pytest
    from glimpsezoo.testing import conformance, rules

    @pytest.mark.parametrize("rule", rules())
    def test_my_model_conforms(rule):
        conformance("my-model", rule, data="digits")

`check_model` checks any model object by every rule; `glimpsezoo check NAME` prints what it finds. `tolerance` measures what rounding may
change of a rollout, and `excess` holds two of them to it.
"""

from glimpsezoo.testing.case import IMAGES, Case, Finding, Numbers, made_images
from glimpsezoo.testing.rounding import Tolerance, excess, tolerance
from glimpsezoo.testing.suite import check_model, check_rule, conformance, rules

__all__ = [
    "IMAGES",
    "Case",
    "Finding",
    "Numbers",
    "Tolerance",
    "check_model",
    "check_rule",
    "conformance",
    "excess",
    "made_images",
    "rules",
    "tolerance",
]
