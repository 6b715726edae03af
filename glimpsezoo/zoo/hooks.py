"""The hooks that a plugin may implement. A hook takes no arguments and returns a list of specs."""

import pluggy

from glimpsezoo.specs import (
    AttackSpec,
    CorruptionSpec,
    DatasetSpec,
    ExitRuleSpec,
    ImporterSpec,
    LoggerSpec,
    MeasureSpec,
    ModelSpec,
    PaperSpec,
    PolicySpec,
)

GROUP = "glimpsezoo"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_models() -> list[ModelSpec]:  # type: ignore[empty-body]
    """Models that users run by name."""


@hookspec
def register_datasets() -> list[DatasetSpec]:  # type: ignore[empty-body]
    """Data sets that users open by name."""


@hookspec
def register_corruptions() -> list[CorruptionSpec]:  # type: ignore[empty-body]
    """Corruptions of images."""


@hookspec
def register_attacks() -> list[AttackSpec]:  # type: ignore[empty-body]
    """Attacks on models."""


@hookspec
def register_exit_rules() -> list[ExitRuleSpec]:  # type: ignore[empty-body]
    """Rules that decide when an image exits early."""


@hookspec
def register_policies() -> list[PolicySpec]:  # type: ignore[empty-body]
    """Policies that choose where a model looks."""


@hookspec
def register_importers() -> list[ImporterSpec]:  # type: ignore[empty-body]
    """Converters of released checkpoints to cards."""


@hookspec
def register_loggers() -> list[LoggerSpec]:  # type: ignore[empty-body]
    """Loggers, which are told how a training goes: `glimpsezoo train MODEL --log NAME`."""


@hookspec
def register_papers() -> list[PaperSpec]:  # type: ignore[empty-body]
    """Papers, whose printed numbers `glimpsezoo compare --paper` shows next to those of the cards."""


@hookspec
def register_measures() -> list[MeasureSpec]:  # type: ignore[empty-body]
    """Measures of runs, each with a section of result.json."""
