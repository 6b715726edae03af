"""Read released checkpoints: find the tensors of a model in a file, whatever a training framework wrapped around them.

DistributedDataParallel, torch.compile, moving averages (EMA) and training frameworks add a prefix to every name, or put the tensors into a
nested dictionary. The prefix is derived from the names that the model expects, never guessed.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.untrusted import check_zip

_WRAPPERS = {"module": "DataParallel, or an AveragedModel", "_orig_mod": "torch.compile"}  # part of a name -> what adds it
_AVERAGED = re.compile(r"ema|averag|swa|shadow", re.IGNORECASE)  # in a prefix: the weights are averages over the training
_DEEPEST = 4  # levels of nested dictionaries that are searched


@dataclass(frozen=True)
class Released:
    """The contents of a released checkpoint."""

    tensors: dict[str, Tensor]
    """The tensors of the model, by the model's names."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """The whole content of the file, by its own names."""
    notes: tuple[str, ...] = ()
    """What was stripped from the names, and which of several sets of weights was taken."""


def read_checkpoint(path: Path, expected: Sequence[str], *, usual: str = "", allowed: Sequence[type] = ()) -> Released:
    """Read a file that was written by `torch.save` or safetensors. No code in it is executed.

    expected: names of the model's tensors; most of them must be in the file, with the same prefix. usual: a prefix that needs no note.
    allowed: classes of plain values that may be unpickled. If the file has raw and averaged weights (EMA), the averaged ones are taken,
    with a note. Raises `GlimpseZooError` for a file that cannot be read, or that has no tensors with these names, or several sets of them.
    """
    content = _content(path, allowed)
    flat = list(_flat(content))
    tensors, holders = {before + name: tensor for before, name, tensor in flat}, {before + name: before for before, name, _ in flat}
    if not tensors:
        raise GlimpseZooError(
            f"expected a checkpoint with tensors by name, got {path.name} without tensors: give the state_dict of the model"
        )
    names, found, cut = _families(tensors, expected)
    if not found:
        some = ", ".join(map(repr, list(tensors)[:3]))
        raise GlimpseZooError(
            f"expected a checkpoint with a tensor {expected[0]!r} (possibly with a prefix), got {path.name} with {some}, ...: "
            "give a checkpoint of this model"
        )
    prefix, notes = _chosen(found, path)
    others = tuple(other for other in found if other.startswith(prefix) and other != prefix)
    theirs = {holders[names[prefix + each]] for each in expected if prefix + each in names}  # excludes, for example, the optimiser's
    own = {
        name.removeprefix(prefix): tensors[key]
        for name, key in names.items()
        if name.startswith(prefix) and not name.startswith(others) and holders[key] in theirs
    }
    if prefix not in {usual, *theirs} or cut:
        makers = [maker for part, maker in _WRAPPERS.items() if part in (*cut, *prefix.split("."))]
        taken = " and ".join(map(repr, [*([prefix] if prefix else []), *(f"{part}." for part in cut)]))
        notes.append(f"{taken} was stripped from the names of the tensors" + (f" (added by {' and '.join(makers)})" if makers else ""))
    return Released(own, content, tuple(notes))


def _content(path: Path, allowed: Sequence[type]) -> Mapping[str, Any]:
    """The dictionary in the file. Raises `GlimpseZooError`."""
    expected = f"expected a checkpoint (of torch.save, or safetensors), got {path.name}"
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(path.read_bytes())
        check_zip(path)
        with torch.serialization.safe_globals([*_numbers(), *allowed]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sparse and quantised tensors, which are refused where they are used
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise anything for a damaged file
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            why = f"with {refused[1]}, which could run code: save the state_dict alone, and give that file"
        else:
            why = f"which cannot be read ({one_line(error):.80}): download it again, or give another file"
        raise GlimpseZooError(f"{expected}, {why}") from None
    if not isinstance(content, Mapping):
        raise GlimpseZooError(f"{expected} with a {type(content).__name__}: give the file that the training wrote, not an export of it")
    return content


def _numbers() -> list[Any]:
    """What unpickles a number of NumPy's, such as a learning rate beside the weights, whichever NumPy wrote it."""
    make = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"}
    return [(make, "numpy.core.multiarray.scalar"), (make, "numpy._core.multiarray.scalar"), np.dtype, *kinds]


def _flat(content: Mapping[Any, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, str, Tensor]]:
    """Yield every tensor as (path of its dictionary, its name, tensor). Every name in the path ends in a dot."""
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield before, str(name), value
        elif isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _flat(value, f"{before}{name}.", depth + 1)


def _families(tensors: Mapping[str, Tensor], expected: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Find the expected names. Returns stripped name -> name in the file, the prefixes of most expected names, and the stripped parts.

    The list of prefixes is empty if the tensors are those of another model.
    """
    best: tuple[int, dict[str, str], list[str], list[str]] = (0, {}, [], [])
    for cut in ((), ("_orig_mod",), ("_orig_mod", "module")):
        names = {".".join(part for part in key.split(".") if part not in cut): key for key in tensors}
        prefixes = dict.fromkeys(name[: -len(last)] for name in names for last in expected[:3] if name == last or name.endswith(f".{last}"))
        scores = {prefix: sum(prefix + each in names for each in expected) for prefix in prefixes}
        found = [prefix for prefix, score in scores.items() if 2 * score >= len(expected)]
        if found and max(scores.values()) > best[0] and len(names) == len(tensors):
            best = max(scores.values()), names, found, [part for part in cut if any(part in key.split(".") for key in tensors)]
    return best[1:]


def _chosen(found: Sequence[str], path: Path) -> tuple[str, list[str]]:
    """The prefix of the tensors to take, and notes on the choice. Raises `GlimpseZooError` if it is ambiguous."""
    if len(found) == 1:
        averaged = _AVERAGED.search(found[0])
        return found[0], [f"its weights are averaged over the training ({found[0]!r})"] if averaged else []
    averaged = [prefix for prefix in found if _AVERAGED.search(prefix)]
    if len(averaged) != 1:
        raise GlimpseZooError(
            f"expected one set of weights, got {path.name} with {len(found)}, under {' and '.join(map(repr, found))}: "
            "save the one to import in a separate file"
        )
    raw = " and ".join(repr(prefix) for prefix in found if prefix not in averaged)
    return averaged[0], [f"the file has raw weights ({raw}) and averaged weights ({averaged[0]!r}): the averaged ones were taken"]
