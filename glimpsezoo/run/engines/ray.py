"""A Ray cluster, or Ray on this machine (the package ray).

Nothing is needed on a shared disk: the plan with its models is put into Ray's object store once, and so is each block of images, so that
every node fetches them once. Workers must have the same glimpsezoo and plugins. What they find comes back to the process that asks.
"""

import os
import pickle
import platform
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from importlib.metadata import packages_distributions
from typing import Any

import torch

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.environment import keep_freed_memory, package_version
from glimpsezoo.evaluation.jobs import UNIT, spans_of
from glimpsezoo.evaluation.plan import PlannedEvaluation
from glimpsezoo.hashing import PACKAGE, module_hash
from glimpsezoo.ranks import ProcessLostError
from glimpsezoo.run.engines.base import Engine, WorkerDiedError, cores
from glimpsezoo.run.engines.shipping import (
    Block,
    BlockKey,
    BlockMissing,
    number_of,
    packed,
    packed_outcome,
    packed_without_data,
    settle,
    unpacked,
)
from glimpsezoo.run.portions import Doer, Outcome, Portion

Needed = tuple[tuple[str, str, str], ...]
"""Packages that decide what is measured: name of the module, version, hash of its code."""
POLL = 1.0  # seconds between looks at the head of the cluster
PATIENCE = 15.0  # seconds that it may be silent; Ray itself would wait for a minute, and then end this process
_checked: set[tuple[str, Needed]] = set()  # nodes that have what is needed
_plan: dict[str, tuple[Doer, dict[BlockKey, Block]]] = {}  # in a worker: the plan that it works on, by name


class Ray(Engine):
    """The workers of a Ray cluster, one portion for each CPU, or for each GPU if the run is on GPUs."""

    def __init__(self, doer: Doer, address: str | None) -> None:
        self.ray = _joined(address)
        self.doer = doer
        payload, self.data = packed_without_data(doer)
        self.plan, self.blocks = self.ray.put(payload), dict[BlockKey, Any]()
        self.on_gpu = doer.config.device is not None and doer.config.device.type == "cuda"
        resources = {"num_cpus": 1, "num_gpus": 1} if self.on_gpu else {"num_cpus": 1}
        self.remote = self.ray.remote(max_retries=0, **resources)(_do)  # `Scheduler` gives a portion to another worker
        self.needed = _needed(type(model).__module__ for model in doer.bench.models)
        self.head = _head(self.ray, address)
        self.flying: set[Future[Outcome]] = set()
        self.closed = threading.Event()
        self._count()
        threading.Thread(target=self._watch, daemon=True).start()

    def _count(self) -> bool:
        """Count the workers: nodes come and go. Returns whether the head of the cluster answers."""
        with suppress(Exception):
            if _answers(self.head):
                self.slots = max(1, int(self.ray.cluster_resources().get("GPU" if self.on_gpu else "CPU", 1)))
                return True
        return False

    def _watch(self) -> None:
        """Until the end: look for new nodes. If the head is gone, all portions are lost."""
        heard = time.monotonic()
        while not self.closed.wait(POLL):
            if self._count():
                heard = time.monotonic()
            elif time.monotonic() - heard > PATIENCE:
                for future in self.flying.copy():
                    self._fail(future, _head_lost(self.head))
                return

    def _fail(self, future: Future[Outcome], error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        done: Future[Outcome] = Future()
        self.flying.add(done)
        done.add_done_callback(self.flying.discard)
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

        def finish(theirs: Future[bytes | BlockMissing]) -> None:
            if done.done():  # given up
                return
            if error := theirs.exception():
                if isinstance(error, self.ray.exceptions.RayError):
                    error = WorkerDiedError(one_line(error)) if _answers(self.head) else _head_lost(self.head)
                self._fail(done, error)
                return
            answer = theirs.result()
            if isinstance(answer, BlockMissing):
                try:
                    self._send(portion, given, [*keys, answer.key], done)
                except Exception as error:  # reading the images, or Ray: nobody would hear of it here
                    self._fail(done, error)
            else:
                settle(done, answer)

        found.future().add_done_callback(finish)

    def close(self, *, hurry: bool) -> None:
        """The process stays in the cluster for its next plan. At its end, Ray ends what it works on."""
        self.closed.set()
        self.blocks.clear()


def reach(address: str | None, modules: Iterable[str]) -> None:
    """Join the cluster, and check that every node of it has glimpsezoo and the packages of these modules. Raises `GlimpseZooError`."""
    ray, needed = _joined(address), _needed(modules)
    on_node = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    ask = ray.remote(num_cpus=0, max_retries=0)(_verdict)
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    asked = {
        each: ask.options(scheduling_strategy=on_node(each, soft=False)).remote(needed) for each in nodes if (each, needed) not in _checked
    }
    for each, answer in asked.items():
        try:
            said = ray.get(answer)
        except ray.exceptions.RayError as error:  # a node that leaves is no fault; one without glimpsezoo cannot even say so
            missing = f"No module named '{PACKAGE}" in str(error)
            said = _without(PACKAGE, _version(PACKAGE), nodes[each]) if missing else None
        if said is not None:
            raise GlimpseZooError(said)
        _checked.add((each, needed))


def _joined(address: str | None) -> Any:
    """Ray, in the cluster."""
    ray = _ray()
    if not ray.is_initialized():
        _connect(ray, address)
    return ray


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


def _head(ray: Any, address: str | None) -> str:
    """HOST:PORT of what the cluster cannot do without."""
    scheme, client, place = (address or os.environ.get("RAY_ADDRESS") or "").partition("://")
    return place if client and scheme == "ray" else ray.get_runtime_context().gcs_address


def _head_lost(head: str) -> ProcessLostError:
    return ProcessLostError(
        f"expected the head of the Ray cluster at {head} until the end, got no answer: what its workers had begun is "
        "lost, and finished units are kept; start it again ('ray start'), and repeat the command, which resumes"
    )


def _needed(modules: Iterable[str]) -> Needed:
    """glimpsezoo, and the packages of these modules."""
    names = dict.fromkeys([PACKAGE, *(module.partition(".")[0] for module in modules)])
    return tuple((name, _version(name), module_hash(name) or "") for name in names)


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
            raise GlimpseZooError(_without(name, version, platform.node())) from None
        if (module_hash(name) or "") != code:
            raise GlimpseZooError(
                f"expected {name} {version} on every node, got another one on {platform.node()} ({_version(name)}): install the same there"
            )


def _without(name: str, version: str, node: str) -> str:
    return f"expected {name} {version} on every node, got a node without it ({node}): install it there"


def _verdict(needed: Needed) -> str | None:
    """What is wrong with the packages of this node, if anything."""
    try:
        _check(needed)
    except GlimpseZooError as error:
        return str(error)
    return None


def _do(needed: Needed, plan: list[Any], work: bytes, keys: list[BlockKey], *blocks: Block) -> bytes | BlockMissing:
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
        return packed_outcome(doer.do(portion, given))
    except BlockMissing as missing:  # the process that asked sends it
        return missing
    except Exception as error:  # it raises this
        return packed_outcome(error)
