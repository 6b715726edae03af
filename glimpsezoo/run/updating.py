"""Checks for `--update-card`: which results may become a card's evidence, and what replacing the old evidence would lose."""

from collections.abc import Iterator, Sequence
from typing import Any

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.base import Measure, Update, is_feed_forward
from glimpsezoo.measures.result import Result
from glimpsezoo.run.request import RunRequest
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.names import ModelChoice
from glimpsezoo.zoo.own_data import DataChoice, trained_on
from glimpsezoo.zoo.results import evidence, measure_classes, measure_specs

TEST = "test"  # the split of all evidence


def check_update(request: RunRequest, choices: Sequence[ModelChoice]) -> None:
    """Raise `GlimpseZooError` unless the run can be evidence: it must measure all images, and cards with unchanged settings."""
    if request.limit is not None:
        raise GlimpseZooError(f"--update-card expects all images to be measured, got --limit {request.limit}: leave one of the two out")
    if request.compile or request.precisions != ("float32",):
        given = " ".join(["--compile"] if request.compile else ["--precision", ",".join(request.precisions)])
        raise GlimpseZooError(f"--update-card expects models in float32 that are not compiled, got {given}: leave one of the two out")
    for choice in choices:
        if choice.card is None:
            raise GlimpseZooError("--update-card expects trained cards, got a model without one: name a card, or leave it out")
        if choice.changed:
            changed = ", ".join(f"{key}={value}" for key, value in choice.changed.items())
            raise GlimpseZooError(
                f"--update-card expects {choice.card.called} with its own settings, got {changed}: leave one of the two out"
            )


def check_kept(
    request: RunRequest,
    chosen: DataChoice,
    measures: Sequence[Measure],
    choices: Sequence[ModelChoice],
    models: Sequence[GlimpseModel[Any]],
) -> None:
    """Raise `GlimpseZooError` if the run uses other data than the cards', or lacks a measurement that their evidence has.

    With --force, nothing is checked.
    """
    if request.force:
        return
    baseline, published = any(map(is_feed_forward, models)), request.corrupted_dir is not None
    for choice, model in zip(choices, models, strict=True):
        card = choice.own_card  # ensured by `check_update`
        other = _other_data(request, chosen, card)
        if other:
            raise GlimpseZooError(
                f"--update-card expects {card.called} measured on the {TEST} split of the data that it was trained on, got {other}: "
                "leave one of the two out, or use --force to make it the card's evidence"
            )
        known = evidence(card)
        lost = [*_lost(known, measures, Update(model, baseline, published))] if known else []
        if lost:
            raise GlimpseZooError(
                f"--update-card would lose parts of the evidence of {card.called}: {'; '.join(lost)}: measure these too "
                f"(it was measured by '{known.run.command if known else ''}'), leave --update-card out, or use --force to replace it"
            )


def evidence_of(card: Card, result: Result) -> Result:
    """The result as the card's evidence: the model has the card's own name, independent of its location."""
    own, called = card.name, result.model.name
    used = result.model.checkpoint
    if used is not None and used.uri == card.called:
        used = used.model_copy(update={"uri": own})
    sections = {spec.name: getattr(result, spec.name) for spec in measure_specs()}
    renamed = {
        name: measure_classes()[name].with_model_renamed(section, called, own) for name, section in sections.items() if section is not None
    }
    return result.model_copy(update={**renamed, "model": result.model.model_copy(update={"name": own, "checkpoint": used})})


def _other_data(request: RunRequest, chosen: DataChoice, card: Card) -> str:
    """The option that selects other data than the card's; '' if there is none."""
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


def _lost(known: Result, measures: Sequence[Measure], update: Update) -> Iterator[str]:
    """What the earlier result has and a run with these measures would lack."""
    if known.run.limit is not None:
        return  # all images replace some of them
    planned = {measure.name: measure for measure in measures}
    for spec in measure_specs():
        section = getattr(known, spec.name)
        if not section or spec.follows:
            continue
        if spec.name not in planned:
            yield spec.name
        else:
            yield from planned[spec.name].lost(section, update)
