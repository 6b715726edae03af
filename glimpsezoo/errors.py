"""The errors that users see: one line with what was expected, what was got, and what to do."""

import difflib
from collections.abc import Iterable
from itertools import islice

from glimpsezoo.escaping import redacted


class GlimpseZooError(Exception):
    """The command or its input is wrong. The message is the one line that the user reads (exit status 2)."""


def one_line(error: BaseException) -> str:
    """The message of any exception on one line, without tokens; or its type if it has no message."""
    return " ".join(redacted(str(error)).split()) or type(error).__name__


def why_not(error: BaseException) -> str:
    """Why a file cannot be used, on one line: what the system says, or else the message."""
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error)


_MEMORY = ("out of memory", "not enough memory", "DefaultCPUAllocator", "alloc_cpu", "std::bad_alloc")  # in messages of allocators


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the CPU or on an accelerator: a `MemoryError`, or the RuntimeError of one of torch's allocators.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), out_of_memory(OSError())
    (True, True, False)
    """
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY))


def check_unicode(name: str) -> None:
    """Raise `GlimpseZooError` for a file name that is not valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise GlimpseZooError(f"expected a name in UTF-8, got {name!r}: rename the file or folder") from None


def first_of(texts: Iterable[str]) -> str:
    """The first five of some texts.

    >>> first_of("ab"), first_of("abcdef")
    ('a, b', 'a, b, c, d, e, ...')
    """
    first = list(islice(texts, 6))
    return ", ".join([*first[:5], "..."] if len(first) > 5 else first)


def counted(count: int, what: str) -> str:
    """A number with its noun.

    >>> counted(1, "corruption"), counted(15, "corruption"), counted(1200, "class")
    ('1 corruption', '15 corruptions', '1,200 classes')
    """
    return f"{count:,} {what}{'' if count == 1 else 'es' if what.endswith('s') else 's'}"


def did_you_mean(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """A clause with the known names nearest to `name`, or else with the first twelve known names.

    >>> did_you_mean("mgnt", ["mgnet", "cnn4", "ranzato"])
    "did you mean 'mgnet'?"
    """
    names = sorted(set(known))
    folded = {n.lower(): n for n in names}
    near = [folded[n] for n in difflib.get_close_matches(name.lower(), folded, n=most, cutoff=0.55)]
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    if not names:
        return "none is known"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}"
