"""Checkpoints that others wrote: tensors by the model's own names, whatever a training wrapped around them.

DistributedDataParallel, torch.compile, moving averages (EMA) and training frameworks put a prefix before every name, or the tensors into
a dictionary inside the file. Which prefix it is follows from the names that the model expects; nothing is cut off by guess.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glimpsezoo.errors import GlimpseZooError, one_line

_WRAPPERS = {"module": "DataParallel, or an AveragedModel", "_orig_mod": "torch.compile"}  # who puts it into names
_AVERAGED = re.compile(r"ema|averag|swa|shadow", re.IGNORECASE)  # of a prefix: weights that are a mean over training
_DEEPEST = 4  # dictionaries inside each other


@dataclass(frozen=True)
class Released:
    """A checkpoint that was read. tensors: of the model, by its names. beside: what else the file holds, by its own names.

    notes: what was taken off the names, and which of several weights were taken.
    """

    tensors: dict[str, Tensor]
    beside: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, expected: Sequence[str], *, usual: str = "", allowed: Sequence[type] = ()) -> Released:
    """Read a file of `torch.save` or safetensors; nothing in it is executed.

    expected: names of tensors that the model has; most of them must be there, with one prefix. usual: a prefix that needs no note.
    allowed: classes of plain values that may be unpickled. Of raw and averaged weights (EMA), the averaged ones are taken, which a note
    says. Raises `GlimpseZooError` for a file that cannot be read, or that holds no tensors by these names, or several sets of them.
    """
    content = _content(path, allowed)
    flat = list(_flat(content))
    tensors, holders = {before + name: tensor for before, name, tensor in flat}, {before + name: before for before, name, _ in flat}
    if not tensors:
        raise GlimpseZooError(f"expected a checkpoint with tensors by name, but {path.name} holds none: give the state_dict of the model")
    names, found, cut = _families(tensors, expected)
    if not found:
        some = ", ".join(map(repr, list(tensors)[:3]))
        raise GlimpseZooError(
            f"expected a checkpoint with a tensor {expected[0]!r}, but {path.name} has none, nor one with a prefix; it has {some}, ...: "
            "give one of this model"
        )
    prefix, notes = _chosen(found, path)
    others = tuple(other for other in found if other.startswith(prefix) and other != prefix)
    theirs = {holders[names[prefix + each]] for each in expected if prefix + each in names}  # not the optimiser's, say
    own = {
        name.removeprefix(prefix): tensors[key]
        for name, key in names.items()
        if name.startswith(prefix) and not name.startswith(others) and holders[key] in theirs
    }
    if prefix not in {usual, *theirs} or cut:
        makers = [maker for part, maker in _WRAPPERS.items() if part in (*cut, *prefix.split("."))]
        taken = " and ".join(map(repr, [*([prefix] if prefix else []), *(f"{part}." for part in cut)]))
        notes.append(f"{taken} was taken off the names of its tensors" + (f" (of {' and '.join(makers)})" if makers else ""))
    return Released(own, content, tuple(notes))


def _content(path: Path, allowed: Sequence[type]) -> Mapping[str, Any]:
    """The file's dictionary. Raises `GlimpseZooError`."""
    expected = f"expected a checkpoint (of torch.save, or safetensors), but {path.name}"
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(path.read_bytes())
        with torch.serialization.safe_globals(list(allowed)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes both raise anything
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            why = f"holds {refused[1]}, which is refused, for it could run code: save the state_dict alone, and give that"
        else:
            why = f"cannot be read as one ({one_line(error):.60}): get it again, or give another"
        raise GlimpseZooError(f"{expected} {why}") from None
    if not isinstance(content, Mapping):
        raise GlimpseZooError(f"{expected} is none: give the file that training wrote, not an export of it")
    return content


def _flat(content: Mapping[Any, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, str, Tensor]]:
    """Every tensor with its name, and before it the names of the dictionaries that hold it, each with a dot."""
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield before, str(name), value
        elif isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _flat(value, f"{before}{name}.", depth + 1)


def _families(tensors: Mapping[str, Tensor], expected: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Names without wrappers inside, with the file's own; the prefixes under which most expected names are found; what was cut out.

    The prefixes are none if the tensors are of another model.
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
    """The prefix whose tensors are taken, and what is to be said of the choice."""
    if len(found) == 1:
        averaged = _AVERAGED.search(found[0])
        return found[0], [f"its weights are averaged over training ({found[0]!r})"] if averaged else []
    averaged = [prefix for prefix in found if _AVERAGED.search(prefix)]
    if len(averaged) != 1:
        raise GlimpseZooError(
            f"expected one set of weights, but {path.name} holds {len(found)}, under {' and '.join(map(repr, found))}: "
            "save the one that is meant in a file of its own"
        )
    raw = " and ".join(repr(prefix) for prefix in found if prefix not in averaged)
    return averaged[0], [f"the file holds raw weights ({raw}) and averaged ones ({averaged[0]!r}): the averaged ones were taken"]
