"""The hooks a plugin may implement. Each takes nothing and returns a list of specs."""

import pluggy

from glimpsezoo.specs import AttackSpec, CorruptionSpec, DatasetSpec, ExitRuleSpec, ImporterSpec, ModelSpec, PaperSpec

GROUP = "glimpsezoo"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_models() -> list[ModelSpec]:  # type: ignore[empty-body]
    """Models that users can name."""


@hookspec
def register_datasets() -> list[DatasetSpec]:  # type: ignore[empty-body]
    """Data sets that users can name."""


@hookspec
def register_corruptions() -> list[CorruptionSpec]:  # type: ignore[empty-body]
    """Corruptions that models are measured under."""


@hookspec
def register_attacks() -> list[AttackSpec]:  # type: ignore[empty-body]
    """Attacks that models are measured under."""


@hookspec
def register_exit_rules() -> list[ExitRuleSpec]:  # type: ignore[empty-body]
    """Rules that end an image's looking early."""


@hookspec
def register_importers() -> list[ImporterSpec]:  # type: ignore[empty-body]
    """Converters from released checkpoints to cards."""


@hookspec
def register_papers() -> list[PaperSpec]:  # type: ignore[empty-body]
    """Papers whose printed numbers `glimpsezoo compare --paper` puts beside the zoo's."""
