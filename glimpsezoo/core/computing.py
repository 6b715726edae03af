"""How a model computes: in which precision, and compiled or not. `rollout` runs the phases of every model in this way."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import one_line, out_of_memory

_SHAPES = 64  # versions of a phase that torch keeps: by model, by number of images (one, and many), by step


class PhaseCalls(NamedTuple):
    """The phases of a model as callables, which may be compiled or return float32 for bfloat16."""

    start: Callable[..., Any]
    sense: Callable[..., Any]
    fuse: Callable[..., Any]
    locate: Callable[..., Any]
    classify: Callable[..., Any]


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager[Any]:
    """A context with convolutions and matrix products in bfloat16 if `bf16`. Its range is that of float32, so training scales no loss.

    With gradients on, no weight that was cast is kept: older torch also uses one that was cast without gradients, and the weight gets none.
    """
    if not bf16:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=not torch.is_grad_enabled())


@contextmanager
def computed(model: GlimpseModel[Any], device: torch.device) -> Iterator[GlimpseModel[Any] | PhaseCalls]:
    """The phases of a model, compiled and in the precision that `model.computing` asks for, for one rollout.

    With gradients on, nothing is compiled: attacks need the graph, and it is the same function up to rounding.
    """
    bf16, compiled = model.computing.precision == "bf16", model.computing.compiled and not torch.is_grad_enabled()
    if not bf16 and not compiled:
        yield model
        return
    phases = {name: getattr(model, name) for name in PhaseCalls._fields}
    if compiled:
        phases = {name: partial(_compiled(getattr(type(model), name)), model) for name in phases}
    if bf16:
        phases["classify"] = partial(_in_full, phases["classify"])
    with ExitStack() as stack:
        if compiled:
            from torch._dynamo import config as dynamo  # takes seconds
            from torch._inductor import config as inductor

            stack.enter_context(dynamo.patch(cache_size_limit=_SHAPES))
            stack.enter_context(inductor.patch(freezing=True))
        stack.enter_context(autocast(device, bf16=bf16))  # once per rollout: it casts each weight once
        yield PhaseCalls(**phases)


def _in_full(classify: Callable[..., Tensor], *given: Any) -> Tensor:
    """The logits of `classify`; those in bfloat16 are converted to float32, which exit rules and rows expect."""
    logits = classify(*given)
    return logits.float() if logits.dtype is torch.bfloat16 else logits


class _Compiled:
    """A phase of a class of models, compiled. If torch cannot compile it, it runs uncompiled from then on."""

    def __init__(self, phase: Callable[..., Any]) -> None:
        warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")  # what is cached are constants
        self.phase, self.compiled, self.failed = phase, torch.compile(phase), False

    def __call__(self, *given: Any) -> Any:
        if self.failed:
            return self.phase(*given)
        try:
            return self.compiled(*given)
        except Exception as error:  # of the compiler, which raises many types, or of the model, which then raises it again
            if out_of_memory(error):
                raise
            found = self.phase(*given)
            self.failed = True
            return found


@cache
def _compiled(phase: Callable[..., Any]) -> _Compiled:
    """The compiled phase, shared by all models of a class: torch's guards tell their weights apart."""
    return _Compiled(phase)


def uncompiled_phases(model: GlimpseModel[Any]) -> list[str]:
    """The phases that torch could not compile in the rollouts so far."""
    return [name for name in PhaseCalls._fields if _compiled(getattr(type(model), name)).failed]


def without_compiler(device: torch.device) -> str:
    """Why torch cannot compile for a device, in one line; '' if it can. Found out by compiling a small function."""
    try:
        with torch.no_grad():
            torch.compile(_small)(torch.zeros(8, device=device))
    except Exception as error:  # there is no C++ compiler, no Triton, no header of Python, ...
        return f"{one_line(error):.120}"
    return ""


def _small(x: Tensor) -> Tensor:
    return x.sin() + 1
