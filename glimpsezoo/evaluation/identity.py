"""What decides the outcome of a job: the identity that the ids of its units hash."""

import dataclasses
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.evaluation.environment import package_version
from glimpsezoo.hashing import core_hash, source_hash, weights_hash
from glimpsezoo.schema import SCHEMA

if TYPE_CHECKING:
    from glimpsezoo.evaluation.jobs import Job

_HASHES: WeakKeyDictionary[GlimpseModel[Any], tuple[list[tuple[str, int, int]], str]] = WeakKeyDictionary()


def identity_of(job: "Job", seed: int) -> dict[str, Any]:
    """Everything that decides the outcome of a job's units, except which images they are: JSON values."""
    model, kind = job.model, type(job.model)
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
    """Versions of the other packages that the model uses, such as a backbone's library. torch is left out, like the device."""
    tops = {type(module).__module__.partition(".")[0] for module in model.modules()}
    own = {"torch", "glimpsezoo", type(model).__module__.partition(".")[0]}
    return {name: package_version(name) or "unknown" for name in tops - own}


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
