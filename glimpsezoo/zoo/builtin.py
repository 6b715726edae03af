"""The built-in data sets, corruptions, attacks and exit rules, registered through the plugin hooks."""

from glimpsezoo.conditions.attacks.catalogue import ATTACKS
from glimpsezoo.conditions.corruptions.catalogue import CORRUPTIONS
from glimpsezoo.data.catalogue import DATASETS
from glimpsezoo.measures.catalogue import MEASURES
from glimpsezoo.specs import AttackSpec, CorruptionSpec, DatasetSpec, ExitRuleSpec, MeasureSpec
from glimpsezoo.zoo.hooks import hookimpl


@hookimpl
def register_datasets() -> list[DatasetSpec]:
    return list(DATASETS)


@hookimpl
def register_corruptions() -> list[CorruptionSpec]:
    return list(CORRUPTIONS)


@hookimpl
def register_attacks() -> list[AttackSpec]:
    return list(ATTACKS)


@hookimpl
def register_exit_rules() -> list[ExitRuleSpec]:
    return [
        ExitRuleSpec(name="fixed", description="Every image takes all steps.", rule="glimpsezoo.core.exits:Fixed"),
        ExitRuleSpec(
            name="confidence",
            description="Exit once the largest class probability reaches a threshold.",
            rule="glimpsezoo.core.exits:Confidence",
        ),
        ExitRuleSpec(
            name="margin",
            description="Exit once the largest class probability is a threshold above the second.",
            rule="glimpsezoo.core.exits:Margin",
        ),
        ExitRuleSpec(
            name="entropy",
            description="Exit once the entropy of the class probabilities falls to a threshold, in nats.",
            rule="glimpsezoo.core.exits:Entropy",
        ),
        ExitRuleSpec(
            name="patience",
            description="Exit once the prediction has stayed the same for a number of further steps.",
            rule="glimpsezoo.core.exits:Patience",
        ),
    ]


@hookimpl
def register_measures() -> list[MeasureSpec]:
    return list(MEASURES)
