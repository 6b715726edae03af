"""The errors a user sees: one line saying what was expected, what was got, and what to do."""

import difflib
from collections.abc import Iterable


class GlimpseZooError(Exception):
    """The command or its input is wrong. Its text is the one line that a user reads (exit status 2)."""


def one_line(error: BaseException) -> str:
    """The text of any exception folded onto one line, with its type when it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def counted(count: int, what: str) -> str:
    """A number with its noun.

    >>> counted(1, "corruption"), counted(15, "corruption")
    ('1 corruption', '15 corruptions')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """A clause naming the known names nearest to `name`, or all of them when they are few.

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
