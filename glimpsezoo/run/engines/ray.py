"""A Ray cluster, or Ray on this machine (the package ray).

Nothing is needed on a shared disk: the plan with its models is put into Ray's object store once, and so is each block of images, so that
every node fetches them once. Workers must have the same glimpsezoo and plugins. What they find comes back to the process that asks.
"""

import os
import pickle
import platform
import socket
from concurrent.futures import Future
from importlib import import_module
from importlib.metadata import packages_distributions
from typing import Any

import torch

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.environment import keep_freed_memory, package_version
from glimpsezoo.evaluation.jobs import UNIT, spans_of
from glimpsezoo.evaluation.plan import PlannedEvaluation
from glimpsezoo.hashing import PACKAGE, module_hash
from glimpsezoo.run.engines.base import Engine, WorkerDiedError, cores
from glimpsezoo.run.engines.shipping import Block, BlockKey, BlockMissing, number_of, packed, packed_without_data, unpacked
from glimpsezoo.run.portions import Doer, Outcome, Portion

Needed = tuple[tuple[str, str, str], ...]
"""Packages that decide what is measured: name of the module, version, hash of its code."""
_plan: dict[str, tuple[Doer, dict[BlockKey, Block]]] = {}  # in a worker: the plan that it works on, by name


class Ray(Engine):
    """The workers of a Ray cluster, one portion for each CPU, or for each GPU if the run is on GPUs."""

    def __init__(self, doer: Doer, address: str | None) -> None:
        self.ray = _ray()
        self.doer = doer
        if not self.ray.is_initialized():
            _connect(self.ray, address)
        payload, self.data = packed_without_data(doer)
        self.plan, self.blocks = self.ray.put(payload), dict[BlockKey, Any]()
        self.on_gpu = doer.config.device is not None and doer.config.device.type == "cuda"
        resources = {"num_cpus": 1, "num_gpus": 1} if self.on_gpu else {"num_cpus": 1}
        self.remote = self.ray.remote(max_retries=0, **resources)(_do)  # `Sharing` gives a portion to another worker
        self.needed = _needed(doer)

    @property
    def slots(self) -> int:  # type: ignore[override]
        """Nodes come and go."""
        return max(1, int(self.ray.cluster_resources().get("GPU" if self.on_gpu else "CPU", 1)))

    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        done: Future[Outcome] = Future()
        self._send(portion, given, self._blocks_of(portion), done)
        return done

    def _blocks_of(self, portion: Portion) -> list[BlockKey]:
        """The images that a portion is known to read."""
        keys: dict[BlockKey, None] = {}
        for place in portion.pieces:
            planned = self.doer.plan[place][1]
            if isinstance(planned, PlannedEvaluation) and place not in portion.skip:
                spans = [portion.span] if portion.span else spans_of(planned.job)
                keys |= dict.fromkeys((number_of(planned.job.data, self.data), start) for start, _ in spans)
        return list(keys)

    def _send(self, portion: Portion, given: Outcome, keys: list[BlockKey], done: Future[Outcome]) -> None:
        """Give a portion to a worker. If it needs other images, it is given again with these."""
        for number, start in keys:
            if (number, start) not in self.blocks:
                self.blocks[number, start] = self.ray.put(Block.of(self.data[number].examples(start, start + UNIT)))
        refs = [self.blocks[key] for key in keys]
        found = self.remote.remote(self.needed, [self.plan], packed((portion, given)), keys, *refs)

        def finish(theirs: Future[bytes]) -> None:
            if error := theirs.exception():
                done.set_exception(WorkerDiedError(one_line(error)) if isinstance(error, self.ray.exceptions.RayError) else error)
                return
            outcome = pickle.loads(theirs.result())
            if isinstance(outcome, BlockMissing):
                self._send(portion, given, [*keys, outcome.key], done)
            elif isinstance(outcome, BaseException):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

        found.future().add_done_callback(finish)

    def close(self, *, hurry: bool) -> None:
        """The process stays in the cluster for its next plan. At its end, Ray ends what it works on."""
        self.blocks.clear()


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise GlimpseZooError("--engine ray expects the package ray, got none: pip install 'ray>=2.40'") from None


def _connect(ray: Any, address: str | None) -> None:
    """Join a cluster, or start Ray on this machine. Raises `GlimpseZooError` if that is impossible."""
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address != "auto" and not address.startswith("ray://") and not _answers(address):
        raise _nobody(address)
    try:
        quiet = {} if address else {"include_dashboard": False, "num_cpus": cores()}
        ray.init(address=address, logging_level="error", log_to_driver=False, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise GlimpseZooError(
            f"expected a Ray cluster at {address or 'this machine'} that this process may join, got none ({one_line(error):.120}): if it "
            "asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to that of 'ray get-auth-token' on its head"
        ) from None


def _answers(address: str) -> bool:
    """Whether somebody listens at an address; Ray itself would wait for a long time."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def _nobody(address: str) -> GlimpseZooError:
    return GlimpseZooError(
        f"expected a Ray cluster at {address}, got no answer: start a cluster there ('ray start'), or correct --ray-address"
    )


def _needed(doer: Doer) -> Needed:
    """glimpsezoo, and the package of each model."""
    modules = [PACKAGE, *(type(model).__module__.partition(".")[0] for model in doer.bench.models)]
    return tuple((name, _version(name), module_hash(name) or "") for name in dict.fromkeys(modules))


def _version(module: str) -> str:
    """The version of the distribution that a module belongs to."""
    names = packages_distributions().get(module, [module])
    return package_version(names[0]) or "of a folder"


def _check(needed: Needed) -> None:
    """Raise `GlimpseZooError` if a package of this node is missing, or another one than the driver's."""
    for name, version, code in needed:
        try:
            import_module(name)
        except ImportError:
            raise GlimpseZooError(
                f"expected {name} {version} on every node, got a node without it ({platform.node()}): install it there"
            ) from None
        if (module_hash(name) or "") != code:
            raise GlimpseZooError(
                f"expected {name} {version} on every node, got another one on {platform.node()} ({_version(name)}): install the same there"
            )


def _do(needed: Needed, plan: list[Any], work: bytes, keys: list[BlockKey], *blocks: Block) -> bytes:
    """A portion of work, in a worker. plan: a reference in a list, so that it is fetched only if this worker does not have it yet."""
    try:
        name = plan[0].hex()
        if name not in _plan:
            _check(needed)
            _plan.clear()
            torch.set_num_threads(1)
            keep_freed_memory()
            own: dict[BlockKey, Block] = {}
            _plan[name] = unpacked(_ray().get(plan[0]), own), own
        doer, own = _plan[name]
        own.clear()
        own.update(zip(keys, blocks, strict=True))
        portion, given = pickle.loads(work)
        return packed(doer.do(portion, given))
    except (Exception, BlockMissing) as error:  # the process that asked raises it, or sends the block
        return packed(error)
