"""The built-in parts, registered through the same hooks as everybody's."""

from glimpsezoo.attacks.catalogue import ATTACKS
from glimpsezoo.corruptions.catalogue import CORRUPTIONS
from glimpsezoo.data.catalogue import DATASETS
from glimpsezoo.hooks import hookimpl
from glimpsezoo.specs import AttackSpec, CorruptionSpec, DatasetSpec, ExitRuleSpec


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
        ExitRuleSpec(name="fixed", description="Every image takes the whole budget of steps.", rule="glimpsezoo.exits:Fixed"),
        ExitRuleSpec(
            name="confidence",
            description="Exit once the largest class probability reaches a threshold.",
            rule="glimpsezoo.exits:Confidence",
        ),
        ExitRuleSpec(
            name="margin",
            description="Exit once the largest class probability is a threshold above the second.",
            rule="glimpsezoo.exits:Margin",
        ),
        ExitRuleSpec(
            name="entropy",
            description="Exit once the entropy of the class probabilities falls to a threshold, in nats.",
            rule="glimpsezoo.exits:Entropy",
        ),
        ExitRuleSpec(
            name="patience",
            description="Exit once the prediction has stayed the same for a number of further looks.",
            rule="glimpsezoo.exits:Patience",
        ),
    ]
