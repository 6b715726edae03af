"""The conformance suite: checks that a plugin's model has the properties on which the harness relies.

In a plugin's tests, with the names that users type:

    import pytest
    from glimpsezoo.testing import conformance, rules

    @pytest.mark.parametrize("rule", rules())
    def test_my_model_conforms(rule):
        conformance("my-model", rule, data="digits")

`check_model` applies every rule to a model object; `glimpsezoo check NAME` prints the findings. `tolerance` measures how much rounding may
change a rollout, and `excess` compares two tensors with it.
"""

from glimpsezoo.core.rounding import Tolerance, excess, tolerance
from glimpsezoo.testing.case import IMAGES, Case, Finding, Numbers, made_images
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
