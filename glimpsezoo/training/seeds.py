"""`--seeds`: the seeds of several trainings by one recipe."""

import re

from glimpsezoo.errors import GlimpseZooError

LARGEST, MOST = 2**32 - 1, 1_000


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a range (both ends are in it), a list, or a list of ranges, in this order. Raises `GlimpseZooError`.

    >>> parse_seeds("0..2,7")
    (0, 1, 2, 7)
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:\.\.([0-9]{1,10}))?\s*", part)
        if match is None:
            raise GlimpseZooError(f"--seeds expects a range or a list of numbers, as 0..4 or 0,3,7, got {text!r}: correct it")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last > LARGEST:
            raise GlimpseZooError(f"--seeds expects ranges that rise, from 0 to {LARGEST}, got {part.strip()!r}: correct it")
        if len(found) + last - first >= MOST:
            raise GlimpseZooError(f"--seeds expects at most {MOST:,} seeds, got more in {text!r}: name fewer")
        found += range(first, last + 1)
    twice = [seed for seed in found if found.count(seed) > 1]
    if twice:
        raise GlimpseZooError(f"--seeds expects every seed once, got {twice[0]} twice in {text!r}: name it once")
    return tuple(found)
