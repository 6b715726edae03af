"""A card's evidence: what may take the place of an earlier result, and what would be lost by it."""

from collections.abc import Iterator, Sequence
from typing import Any

from glimpsezoo.cards import Card
from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.measures import AttackWanted, Measures
from glimpsezoo.own_data import DataChoice, trained_on
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Anytime, Attack, Corruptions, Result
from glimpsezoo.reports import evidence
from glimpsezoo.resolve import ModelChoice
from glimpsezoo.tables import attack_text
from glimpsezoo.workflows.planning import evaluations_of
from glimpsezoo.workflows.requests import RunRequest

TEST = "test"  # the split that evidence is of


def check_update(request: RunRequest, choices: Sequence[ModelChoice]) -> None:
    """See that `--update-card` is asked for what can be a card's evidence at all: all images, and the card as it is.

    Raises `GlimpseZooError`.
    """
    if request.limit is not None:
        raise GlimpseZooError(
            f"--update-card expects all images to be measured, got --limit {request.limit}, which is no evidence: leave one of them out"
        )
    for choice in choices:
        if choice.card is None:
            raise GlimpseZooError("--update-card expects trained cards, got a model without one: name a card, or leave it out")
        if choice.changed:
            changed = ", ".join(f"{key}={value}" for key, value in choice.changed.items())
            raise GlimpseZooError(f"--update-card expects {choice.card.called} with its own settings, got {changed}: leave one of them out")


def check_kept(
    request: RunRequest, chosen: DataChoice, measures: Measures, choices: Sequence[ModelChoice], models: Sequence[GlimpseModel[Any]]
) -> None:
    """See that what `--update-card` will write is of the cards' own data, and has all that their evidence has.

    Raises `GlimpseZooError`, unless the user forces it, which says what would be lost.
    """
    if request.force:
        return
    baseline = measures.baseline is not None or any(model.steps == 1 and model.sees == "full image" for model in models)
    for choice, model in zip(choices, models, strict=True):
        assert choice.card is not None  # `check_update` has seen to it
        card, other = choice.card, _other_data(request, chosen, choice.card)
        if other:
            raise GlimpseZooError(
                f"--update-card expects {card.called} measured on the {TEST} split of the data that it was trained on, got {other}: "
                "leave one of them out, or --force to make it the card's evidence"
            )
        known = evidence(card)
        lost = [*_lost(known, measures, model, published=request.corrupted_dir is not None, baseline=baseline)] if known else []
        if lost:
            raise GlimpseZooError(
                f"--update-card would lose what the evidence of {card.called} has: {'; '.join(lost)}: measure that too "
                f"(it was measured by '{known.run.command if known else ''}'), leave --update-card out, or --force to replace it"
            )


def evidence_of(card: Card, result: Result) -> Result:
    """A result as it lies beside the card's weights, wherever that is: by the card's own name."""
    own, called = card.name, result.model.name
    used = result.model.checkpoint
    if used is not None and used.uri == card.called:
        used = used.model_copy(update={"uri": own})
    changes: dict[str, Any] = {"model": result.model.model_copy(update={"name": own, "checkpoint": used})}
    found = result.corruptions
    if found and found.mce and found.mce.baseline == called:
        changes["corruptions"] = found.model_copy(update={"mce": found.mce.model_copy(update={"baseline": own})})
    return result.model_copy(update=changes)


def _other_data(request: RunRequest, chosen: DataChoice, card: Card) -> str:
    """What the user chose that are not the card's own data; '' if nothing."""
    trained, size = trained_on(card.config), chosen.settings.get("size")
    if request.split != TEST:
        return f"--split {request.split}"
    if trained is None:
        return ""
    if trained.data != chosen.shown:
        return f"--data {chosen.shown}"
    if size is not None and (int(size), int(size)) != trained.image_size:
        return f"data.size={size}"
    differ = [key for key in {**trained.settings, **chosen.recorded} if trained.settings.get(key) != chosen.recorded.get(key)]
    return next((f"data.{key}={chosen.settings.get(key)}" for key in differ if key != "size"), "")


def _lost(known: Result, measures: Measures, model: GlimpseModel[Any], *, published: bool, baseline: bool) -> Iterator[str]:
    """What an earlier result has, and one of these measures would not have."""
    if known.run.limit is not None:
        return  # a part is replaced by the whole
    for section in ("accuracy", "flops", "anytime", "speed"):
        if getattr(known, section) is not None and section not in measures.sections:
            yield section
    if known.anytime and "anytime" in measures.sections:
        yield from _lost_points(known.anytime, measures)
    if known.corruptions:
        yield from _lost_corruptions(known.corruptions, measures, published=published, baseline=baseline)
    if known.anytime and known.anytime.equal_accuracy and "anytime" in measures.sections and not baseline:
        yield f"the comparison with {known.anytime.equal_accuracy.baseline}, which is not measured beside it"
    planned = [_threat(wanted, model) for wanted in measures.attacks]
    for attack in known.attacks:
        if _threat_of(attack) not in planned:
            yield f"{attack.name} ({attack_text(attack)})"


def _lost_points(known: Anytime, measures: Measures) -> Iterator[str]:
    wanted = measures.anytime
    points = wanted.points + any(each is not None for each in (wanted.accuracy, wanted.macs, wanted.threshold))
    exits = [point for point in known.curve if point.rule != "fixed"]
    if any(point.rule != wanted.rule for point in exits):
        yield f"early exits by {exits[0].rule}"
    elif len(exits) > points:
        yield f"{counted(len(exits), 'point')} of the anytime curve, of which {points} would be measured"


def _lost_corruptions(known: Corruptions, measures: Measures, *, published: bool, baseline: bool) -> Iterator[str]:
    if (known.preset == "published") != published and measures.corruptions:
        yield f"corruptions by {known.implementation}"
        return
    planned = {wanted.spec.name: wanted.severities for wanted in measures.corruptions}
    found = {name: [severity for severity, cell in enumerate(cells, 1) if cell] for name, cells in known.table.items()}
    lost = [name for name, severities in found.items() if not set(severities) <= set(planned.get(name, ()))]
    if lost:
        yield counted(len(lost), "corruption") if len(lost) > 3 else f"corrupted by {', '.join(lost)}"
    elif known.mce and not baseline:
        yield f"mCE against {known.mce.baseline}, which is not measured beside it"


def _threat(wanted: AttackWanted, model: GlimpseModel[Any]) -> tuple[Any, ...]:
    """What makes two attacks the same."""
    s: Any = wanted.settings
    numbers = (round(s.eps, 9), round(s.step, 9), s.steps, s.restarts, s.eot, evaluations_of(s, model))
    return (wanted.spec.name, s.norm, s.target, s.path, *numbers)


def _threat_of(attack: Attack) -> tuple[Any, ...]:
    numbers = (round(attack.eps, 9), round(attack.step_size, 9), attack.steps, attack.restarts, attack.eot, attack.evaluations)
    return (attack.name, attack.norm, attack.target, attack.path, *numbers)
