"""The built-in parts, registered through the same hooks as everybody's."""

from glimpsezoo.data.catalogue import DATASETS
from glimpsezoo.hooks import hookimpl
from glimpsezoo.specs import DatasetSpec, ExitRuleSpec


@hookimpl
def register_datasets() -> list[DatasetSpec]:
    return list(DATASETS)


@hookimpl
def register_exit_rules() -> list[ExitRuleSpec]:
    return [
        ExitRuleSpec(name="fixed", description="Every image takes the whole budget of steps.", rule="glimpsezoo.exits:Fixed"),
        ExitRuleSpec(
            name="confidence",
            description="Exit once the largest class probability reaches a threshold.",
            rule="glimpsezoo.exits:Confidence",
        ),
    ]
