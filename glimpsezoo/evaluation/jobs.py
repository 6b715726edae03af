"""Jobs: a model on data under a condition, done in units of 1,000 images, and what decides their outcome."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from glimpsezoo.conditions.base import Clean, Condition
from glimpsezoo.core.exits import ExitRule, Fixed
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.pixels import most_pixels
from glimpsezoo.evaluation.environment import package_version
from glimpsezoo.hashing import core_hash, module_hash, packages_behind, source_hash, unit_id, weights_hash
from glimpsezoo.schema import SCHEMA

UNIT = 1000  # images per unit
Span = tuple[int, int]
"""The images of a unit: the first, and the one after the last."""
_HASHES: WeakKeyDictionary[GlimpseModel[Any], tuple[list[tuple[str, int, int]], str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Job:
    """What to measure: a model on data under a condition."""

    model: GlimpseModel[Any]
    name: str
    """Name of the model in results."""
    data: ImageData
    condition: Condition = field(default_factory=Clean)
    exit_rule: ExitRule = field(default_factory=Fixed)
    steps: int | None = None
    """Budget of steps; None means all that the model takes."""

    @property
    def budget(self) -> int:
        return self.model.steps if self.steps is None else self.steps


def spans_of(job: Job) -> list[Span]:
    """The units of a job, in the order of the data."""
    images = len(job.data)
    return [(start, min(start + UNIT, images)) for start in range(0, images, UNIT)]


def unit_ids(job: Job, seed: int = 0) -> list[str]:
    """The ids of all units of a job; `UnitStore.has` tells which of them are done."""
    identity = identity_of(job, seed)
    return [unit_id(identity, start, stop) for start, stop in spans_of(job)]


def identity_of(job: Job, seed: int) -> dict[str, Any]:
    """Everything that decides the outcome of a job's units, except which images they are: JSON values."""
    model, kind, most = job.model, type(job.model), most_pixels()
    return {
        "schema": SCHEMA,
        "core": core_hash(),
        "model": {
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "config": model.config.model_dump(mode="json"),
            "task": dataclasses.asdict(model.task),
            "weights": _weights_of(model),
            "source": source_hash(kind),
            "libraries": _libraries(model),
            "policy": source_hash(type(model.follows)),
            "computing": dataclasses.asdict(model.computing),
        },
        "data": {key: value for key, value in dataclasses.asdict(job.data.info).items() if key != "inferred"},  # the fingerprint covers it
        "most_pixels": most if math.isfinite(most) else None,  # larger images are bad ones
        "condition": {
            "name": job.condition.name,
            "parameters": job.condition.parameters,
            "implementation": [job.condition.implementation, source_hash(job.condition.kind)],
        },
        "exit_rule": {
            "name": job.exit_rule.name,
            "parameters": job.exit_rule.parameters,
            "source": source_hash(type(job.exit_rule)),
        },
        "steps": job.budget,
        "seed": seed,
    }


def _libraries(model: GlimpseModel[Any]) -> dict[str, str]:
    """The code of the other packages that the model's networks come from, such as a backbone's library, or the version of one without
    source files. torch is left out, like the device.
    """
    names = packages_behind(map(type, model.modules()))
    return {name: module_hash(name) or package_version(name) or "unknown" for name in names}


def _weights_of(model: GlimpseModel[Any]) -> str:
    """The hash of a model's weights. It is remembered as long as no tensor was replaced or changed in place: a run asks for it hundreds
    of times, and the weights may have gigabytes.
    """
    tensors = model.state_dict()
    places = [(name, tensor.data_ptr(), tensor._version) for name, tensor in tensors.items()]
    known = _HASHES.get(model)
    if known is None or known[0] != places:
        known = _HASHES[model] = places, weights_hash(tensors)
    return known[1]
