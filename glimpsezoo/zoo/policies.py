"""Policies by name. Imports no torch: configs use `PolicyName`."""

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import PolicySpec, load_string
from glimpsezoo.zoo.plugins import registry

if TYPE_CHECKING:
    from glimpsezoo.core.protocol import Policy


def _registered(name: str) -> str:
    try:
        registry().find(PolicySpec, name)
    except GlimpseZooError as error:
        raise ValueError(str(error)) from None  # pydantic expects one
    return name


PolicyName = Annotated[str, AfterValidator(_registered)]
"""A setting of a model: the name of a registered policy."""


def find_policy(name: str) -> "Policy":
    """The policy of this name, for `GlimpseModel.follow`.

    Raises `GlimpseZooError` for an unknown name, and for a policy that calls itself otherwise: results record its own name.

    >>> find_policy("random").stochastic
    True
    """
    spec = registry().find(PolicySpec, name)
    policy = load_string(spec.policy)()
    if policy.name != spec.name:
        raise GlimpseZooError(
            f"expected {spec.policy} to have the name {spec.name!r}, which {spec.provenance} registers it by, got {policy.name!r}: "
            "give it that one"
        )
    return policy
