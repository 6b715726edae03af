"""The rules by name, and functions that apply them to a model."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.testing import contract, draws, invariance, learning, other_policies
from glimpsezoo.testing.case import Case, Finding, RuleResult, Training
from glimpsezoo.testing.learning import WITHOUT_RECIPE, training_of
from glimpsezoo.training.job import TrainingStep
from glimpsezoo.zoo.cards import Card, find_card
from glimpsezoo.zoo.models import create_model, load
from glimpsezoo.zoo.names import spec_of

RULES: dict[str, Callable[[Case], RuleResult]] = {
    "shapes": contract.shapes,
    "determinism": invariance.determinism,
    "batch": invariance.batch,
    "order": invariance.order,
    "compaction": invariance.compaction,
    "gather": invariance.gather,
    "join": invariance.join,
    "prefix": invariance.prefix,
    "regions": contract.regions,
    "macs": contract.macs,
    "log-prob": draws.log_prob,
    "noise": draws.fresh_noise,
    "policies": other_policies.policies,
    "training": learning.training,
    "gradient": contract.gradient,
    "round-trip": contract.round_trip,
    "card": contract.card,
    "odd-size": contract.odd_size,
    "batch-of-one": contract.batch_of_one,
    "one-class": contract.one_class,
    "float64": contract.float64,
    "bfloat16": contract.bfloat16,
}
MAY_REFUSE = ("odd-size", "one-class", "training")  # these rules accept a GlimpseZooError as an answer


def rules() -> tuple[str, ...]:
    """The names of all rules, for `pytest.mark.parametrize`."""
    return tuple(RULES)


def check_model(
    model: GlimpseModel[Any],
    images: Float[Tensor, "B C H W"] | None = None,
    *,
    card: Card | None = None,
    training_step: TrainingStep | None = None,
) -> list[Finding]:
    """Apply every rule to a copy of `model`.

    images: of the model's task, in [0, 1]; made up by default. card: the card from which it was loaded; by default the one that the
    model names, if any. training_step: how it is trained; without it, the rule `training` is skipped.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("cnn4", task=gz.Task((28, 28), 1, ("odd", "even")))
    >>> [finding.rule for finding in check_model(model) if not finding.passed]
    []
    """
    if card is None and model.card is not None:
        found = find_card(model.card.name)
        card = found if found and found.config == model.card else None
    case = Case.of(model, images, card, Training(training_step, (WITHOUT_RECIPE,)) if training_step else None)
    return [check_rule(rule, case) for rule in RULES]


def check_rule(rule: str, case: Case) -> Finding:
    """Apply one rule. Anything that the model raises becomes a finding. Raises `GlimpseZooError` for an unknown rule."""
    if rule not in RULES:
        raise GlimpseZooError(f"expected a rule of the conformance suite, got {rule!r}: {did_you_mean(rule, RULES)}")
    sentence = (RULES[rule].__doc__ or "").partition("\n")[0]
    devices = [case.images.device] if case.images.is_cuda else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(0)
            result = RULES[rule](case)
    except GlimpseZooError as error:
        refused = rule in MAY_REFUSE and "\n" not in str(error)
        return Finding(rule, sentence, "refused" if refused else "failed", message=one_line(error))
    except Exception as error:  # a plugin's model may fail in any way
        return Finding(rule, sentence, "failed", message=f"{type(error).__name__}: {one_line(error):.300}")
    status = "failed" if result.problem else "skipped" if result.skipped else "ok"
    return Finding(rule, sentence, status, result.numbers, result.problem or result.skipped)


def conformance(name: str, rule: str, **settings: Any) -> Finding:
    """Assert that the model or card `name` obeys one rule; returns the finding.

    settings: the arguments of `create_model` (`task`, `data`, `seed`, and the model's settings), or of `load` for a card.
    Raises `AssertionError` with the problem and the numbers, and `GlimpseZooError` for an unknown name, rule or setting.

    >>> conformance("cnn4", "prefix", data="digits").status
    'ok'
    """
    card = find_card(name)
    model = create_model(name, **settings) if card is None else load(name, **settings)
    training = training_of(spec_of(name, card), name) if rule == "training" else None
    found = check_rule(rule, Case.of(model, card=card, training=training))
    if not found.passed:
        raise AssertionError(f"{name} breaks the rule {rule!r} ({found.sentence}) {found.message} [{found.measured}]")
    return found
