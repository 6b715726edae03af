"""Glimpse models and one honest way to measure them.

    import glimpsezoo as gz

    model = gz.load("mgnet.digits")
    trace = gz.rollout(model, images)

Importing this package loads neither torch nor timm nor datasets: every public name below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from glimpsezoo.hooks import hookimpl

if TYPE_CHECKING:
    from glimpsezoo.api import EvaluationResult, create_model, evaluate, list_models, load
    from glimpsezoo.attacks.base import Attack
    from glimpsezoo.attacks.settings import AttackSettings
    from glimpsezoo.attacks.victim import Victim
    from glimpsezoo.batched import Batched, select_rows
    from glimpsezoo.checkpoints import Released, read_checkpoint
    from glimpsezoo.conditions import Clean, Condition
    from glimpsezoo.cost import Meter, count_macs
    from glimpsezoo.driver import Record, Trace, rollout
    from glimpsezoo.errors import GlimpseZooError, did_you_mean
    from glimpsezoo.exits import Confidence, Entropy, ExitRule, Fixed, Margin, Patience, ThresholdRule
    from glimpsezoo.noise import Noise
    from glimpsezoo.policies import trivial_centres
    from glimpsezoo.protocol import GlimpseModel, PaperMacs, Phase, State
    from glimpsezoo.regions import Decision, Regions
    from glimpsezoo.settings import Settings
    from glimpsezoo.specs import AttackSpec, CorruptionSpec, DatasetSpec, ExitRuleSpec, ImporterSpec, ModelSpec, PaperSpec, Task
    from glimpsezoo.training import TrainingPhase

_HOME = {
    "glimpsezoo.api": ("EvaluationResult", "create_model", "evaluate", "list_models", "load"),
    "glimpsezoo.attacks.base": ("Attack",),
    "glimpsezoo.attacks.settings": ("AttackSettings",),
    "glimpsezoo.attacks.victim": ("Victim",),
    "glimpsezoo.batched": ("Batched", "select_rows"),
    "glimpsezoo.checkpoints": ("Released", "read_checkpoint"),
    "glimpsezoo.conditions": ("Clean", "Condition"),
    "glimpsezoo.cost": ("Meter", "count_macs"),
    "glimpsezoo.errors": ("GlimpseZooError", "did_you_mean"),
    "glimpsezoo.exits": ("Confidence", "Entropy", "ExitRule", "Fixed", "Margin", "Patience", "ThresholdRule"),
    "glimpsezoo.noise": ("Noise",),
    "glimpsezoo.policies": ("trivial_centres",),
    "glimpsezoo.protocol": ("GlimpseModel", "PaperMacs", "Phase", "State"),
    "glimpsezoo.regions": ("Decision", "Regions"),
    "glimpsezoo.driver": ("Record", "Trace", "rollout"),
    "glimpsezoo.settings": ("Settings",),
    "glimpsezoo.specs": ("AttackSpec", "CorruptionSpec", "DatasetSpec", "ExitRuleSpec", "ImporterSpec", "ModelSpec", "PaperSpec", "Task"),
    "glimpsezoo.training": ("TrainingPhase",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: PLE0604 - the names come from one table
    "hookimpl",
    *_MODULE_OF,
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'glimpsezoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
