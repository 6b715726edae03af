"""What differs while torch.export traces a model: sizes are symbols, and tensors belong to the graph.

torch.export runs a model's own Python once, on tensors without values. Three things need care, and everything else is as always:
- The built-in `len` must return an int, so it would fix the number of images. Within `symbolic`, `len(tensor)` is `tensor.shape[0]`.
- A cached tensor (`tensor_cache`) would leave one graph and enter another. Nothing is cached meanwhile.
- A check that looks into a tensor has no value to look at, and a graph could not raise its error. It asks `exporting` first. Those of
  torch's distributions, and of annotations (by which a size is an int), are off.
"""

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import jaxtyping
import torch
from torch import Tensor
from torch.distributions import Distribution

P = ParamSpec("P")
R = TypeVar("R")

_exporting = False
_len = builtins.len


def exporting() -> bool:
    """Whether a model is being exported: its tensors have no values, and their sizes may be symbols.

    A check that looks into a tensor is left out then: `if not gz.exporting() and places.isnan().any(): raise ...`
    """
    return _exporting


def tensor_cache(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Caches the tensors that a function makes, like `lru_cache`, except while a model is being exported.

    They are never made in inference mode, because such tensors cannot be saved for a backward pass later.
    """

    def decorate(make: Callable[P, R]) -> Callable[P, R]:
        cached = lru_cache(maxsize)(torch.inference_mode(False)(make))

        @wraps(make)
        def get(*key: P.args, **named: P.kwargs) -> R:
            return make(*key, **named) if _exporting else cached(*key, **named)

        return get

    return decorate


@contextmanager
def symbolic() -> Iterator[None]:
    """The context in which torch.export traces a model. It affects the whole process, so other threads should not compute meanwhile."""
    global _exporting
    validating, unchecked = Distribution._validate_args, jaxtyping.config.jaxtyping_disable
    Distribution.set_default_validate_args(False)
    jaxtyping.config.update("jaxtyping_disable", True)
    _exporting, builtins.len = True, _length
    try:
        yield
    finally:
        _exporting, builtins.len = False, _len
        Distribution.set_default_validate_args(validating)
        jaxtyping.config.update("jaxtyping_disable", unchecked)


def _length(value: Any) -> Any:
    """`len`, which may be a symbol for a tensor, and for an object whose class computes it in Python."""
    if isinstance(value, Tensor):
        return value.shape[0] if value.ndim else _len(value)
    own = getattr(type(value), "__len__", None)
    return own(value) if isinstance(own, FunctionType) else _len(value)
