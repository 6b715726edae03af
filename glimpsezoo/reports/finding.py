"""What a set of results shows, in a sentence per data set: which model is better or cheaper by the paired tests, or that none is."""

from collections.abc import Iterator, Mapping, Sequence, Set

from glimpsezoo.errors import counted
from glimpsezoo.measures.costs import mean_macs
from glimpsezoo.measures.pairs import SIGNIFICANT, Pair, p_text
from glimpsezoo.measures.result import model_identity
from glimpsezoo.measures.seeds import RecipePair
from glimpsezoo.measures.shown import Entry
from glimpsezoo.measures.text import macs_text, with_interval

VAGUE = 0.1  # width of an interval, as a share of the images, that says nothing of which model is better
NAMED = 4  # models that a sentence lists; of more, it counts the rest

Tests = Mapping[tuple[str, str], Pair | RecipePair]


def findings(entries: Sequence[Entry], pairs: Sequence[Pair | RecipePair]) -> list[str]:
    """One sentence per data set whose models have an accuracy. It names the data set if there are several."""
    tests = {(pair.a, pair.b): pair for pair in pairs}
    measured = _each_once([entry for entry in entries if entry.result.accuracy], {name for names in tests for name in names})
    groups = {data: [entry for entry in measured if entry.data == data] for data in dict.fromkeys(entry.data for entry in measured)}
    return [_finding(members, tests, f"On {data}: " if len(groups) > 1 else "") for data, members in groups.items()]


def _each_once(entries: Sequence[Entry], tested: Set[str]) -> list[Entry]:
    """One entry per model and accuracy, because the cells of a grid measure the same clean images again. One that was tested, if any."""
    found = dict[tuple[str, str, str], Entry]()
    for entry in sorted(entries, key=lambda entry: entry.name not in tested):
        found.setdefault((entry.data, model_identity(entry.result), entry.result.accuracy.to_json()), entry)
    return [entry for entry in entries if any(entry is each for each in found.values())]


def _finding(entries: Sequence[Entry], tests: Tests, where: str) -> str:
    best = max(entries, key=_top1)
    models = {model_identity(entry.result) for entry in entries}
    others = sorted((each for each in entries if (each.name, best.name) in tests), key=_top1, reverse=True)
    if len(models) == 1:
        return f"{where}{_alone(best)}."
    if not others:
        return f"{where}{_alone(best)}, the most of {len(models)} models; without rows of the same images, no test says whether by chance."
    untested = len(models - {model_identity(entry.result) for entry in (best, *others)})
    close = [each for each in others if tests[each.name, best.name].p >= SIGNIFICANT]
    said = _close(best, close, tests) if close else _first(best, others, tests)
    return f"{where}{said}{f' ({untested} more could not be tested)' if untested else ''}."


def _alone(entry: Entry) -> str:
    cost = _macs(entry)
    at = f" at {macs_text(cost)} MACs per image" if cost else ""
    return f"{entry.name} classifies {with_interval(entry.result.accuracy.top1)} % of the images correctly{at}"


def _first(best: Entry, others: Sequence[Entry], tests: Tests) -> str:
    """All others are significantly worse."""
    second = others[0]
    every = "both" if len(others) == 2 else f"all {len(others)}"
    who = second.name if len(others) == 1 else f"{every} others; the next is {second.name}"
    numbers = f"{_difference(tests[best.name, second.name])}, {p_text(tests[second.name, best.name])}"
    return f"{best.name} is significantly more accurate than {who} ({numbers}){_times(best, second)}"


def _close(best: Entry, close: Sequence[Entry], tests: Tests) -> str:
    """Some others are not significantly worse: the cheapest of all these, if their costs are known and differ."""
    alike = [best, *close]
    pairs = [tests[each.name, best.name] for each in close]
    if max(pair.high - pair.low for pair in pairs) > VAGUE:
        images = counted(min(pair.n for pair in pairs), "image")
        return f"{images} cannot tell {_listed(alike)} apart ({_difference(pairs[0])})"
    costs = [_macs(each) for each in alike]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(alike) or len(set(known)) == 1:
        return f"No significant difference in accuracy between {_listed(alike)}: none is shown to be better or cheaper"
    cheapest = alike[known.index(min(known))]
    if cheapest is best:
        second = next(each for each in close if _macs(each) != min(known))
        return (
            f"{best.name} is the cheapest of the {len(alike)} most accurate models; the next, {second.name}, is not significantly worse "
            f"({_difference(tests[second.name, best.name])}){_times(second, best)}"
        )
    pair = tests[cheapest.name, best.name]
    return f"{cheapest.name} is not significantly worse than {best.name} ({_difference(pair)}){_times(cheapest, best)}"


def _listed(entries: Sequence[Entry]) -> str:
    """All names, or the first ones and how many more."""
    names = [entry.name for entry in entries]
    *some, last = names if len(names) <= NAMED else [*names[: NAMED - 1], f"{len(names) - NAMED + 1} others"]
    return f"{', '.join(some)} and {last}"


def _difference(pair: Pair | RecipePair) -> str:
    return f"{100 * pair.difference:+.2f} points, {100 * pair.low:+.2f} to {100 * pair.high:+.2f}"


def _times(one: Entry, other: Entry) -> str:
    macs, others = _macs(one), _macs(other)
    return f" and needs {macs / others:.3g} times its MACs" if macs and others else ""


def _macs(entry: Entry) -> float | None:
    """Mean MACs per image; None if they are not known exactly."""
    return None if entry.result.at_least else mean_macs(entry.result)


def _top1(entry: Entry) -> float:
    return entry.result.accuracy.top1.value


def headline(entries: Sequence[Entry]) -> Iterator[str]:
    """When the results were measured, with which version, on how many images: parts of a line."""
    days = sorted({entry.result.run.started.date().isoformat() for entry in entries})
    versions = sorted({version for entry in entries if (version := entry.result.environment.packages.get("glimpsezoo"))})
    yield f"measured {days[0]}{f' to {days[-1]}' if len(days) > 1 else ''}" if days else ""
    yield f"glimpsezoo {', '.join(versions)}" if versions else ""
    images = sorted({entry.result.accuracy.top1.n for entry in entries if entry.result.accuracy})
    yield f"{images[0]:,}{f' to {images[-1]:,}' if len(images) > 1 else ''} images" if images else ""
