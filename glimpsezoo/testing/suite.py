"""The rules by name, and what applies them to a model."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.api import create_model, load
from glimpsezoo.cards import Card, find_card
from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.testing import contract, invariance
from glimpsezoo.testing.case import Case, Finding, Outcome

RULES: dict[str, Callable[[Case], Outcome]] = {
    "shapes": contract.shapes,
    "determinism": invariance.determinism,
    "batch": invariance.batch,
    "order": invariance.order,
    "compaction": invariance.compaction,
    "gather": invariance.gather,
    "prefix": invariance.prefix,
    "regions": contract.regions,
    "macs": contract.macs,
    "gradient": contract.gradient,
    "round-trip": contract.round_trip,
    "card": contract.card,
    "odd-size": contract.odd_size,
    "batch-of-one": contract.batch_of_one,
    "one-class": contract.one_class,
    "float64": contract.float64,
}
MAY_REFUSE = ("odd-size", "one-class")  # a GlimpseZooError is an answer there


def rules() -> tuple[str, ...]:
    """The names of all rules, for `pytest.mark.parametrize`."""
    return tuple(RULES)


def check_model(model: GlimpseModel[Any], images: Float[Tensor, "B C H W"] | None = None, *, card: Card | None = None) -> list[Finding]:
    """What every rule finds of `model`, which is left as it is.

    images: of the model's task, in [0, 1]; some are made up unless given. card: the one that it was loaded from; by default that of
    the name that the model carries, if it carries one.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("cnn4", task=gz.Task((28, 28), 1, ("odd", "even")))
    >>> [finding.rule for finding in check_model(model) if not finding.passed]
    []
    """
    if card is None and model.card is not None:
        found = find_card(model.card.name)
        card = found if found and found.config == model.card else None
    case = Case.of(model, images, card)
    return [check_rule(rule, case) for rule in RULES]


def check_rule(rule: str, case: Case) -> Finding:
    """What one rule finds. Whatever the model raises is a finding too. Raises `GlimpseZooError` for a rule that there is not."""
    if rule not in RULES:
        raise GlimpseZooError(f"expected a rule of the conformance suite, got {rule!r}: {did_you_mean(rule, RULES)}")
    sentence = (RULES[rule].__doc__ or "").partition("\n")[0]
    devices = [case.images.device] if case.images.is_cuda else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(0)
            outcome = RULES[rule](case)
    except GlimpseZooError as error:
        refused = rule in MAY_REFUSE and "\n" not in str(error)
        return Finding(rule, sentence, "refused" if refused else "failed", message=one_line(error))
    except Exception as error:  # a plugin's model may fail in any way
        return Finding(rule, sentence, "failed", message=f"{type(error).__name__}: {one_line(error):.300}")
    status = "failed" if outcome.problem else "skipped" if outcome.skipped else "ok"
    return Finding(rule, sentence, status, outcome.numbers, outcome.problem or outcome.skipped)


def conformance(name: str, rule: str, **settings: Any) -> Finding:
    """Assert that the model or card `name` keeps one rule; what it found is returned.

    settings: what `create_model` takes (`task`, `data`, `seed`, and the model's own), or `load` for a card.
    Raises `AssertionError`, which says what is wrong and has the numbers, and `GlimpseZooError` for an unknown name, rule or setting.

    >>> conformance("cnn4", "prefix", data="digits").status
    'ok'
    """
    card = find_card(name)
    model = create_model(name, **settings) if card is None else load(name, **settings)
    found = check_rule(rule, Case.of(model, card=card))
    if not found.passed:
        raise AssertionError(f"{name} breaks the rule {rule!r} ({found.sentence}) {found.message} [{found.measured}]")
    return found
