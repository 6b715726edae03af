"""What accuracy under corruptions and under attacks have in common: shares of conditions, and plots against the cost of each step."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.accuracy import bound, cost_point
from glimpsezoo.measures.costs import step_costs
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import ACCURACY_AXIS, Axis, Entry, Figure, Line, macs_axis
from glimpsezoo.measures.statistics import Estimate, mean_share, proportion


def share_estimate(shares: ndarray, groups: ndarray) -> Estimate:
    """The mean share; with Wilson's interval if every image has a share of 0 or 1."""
    whole = shares.astype(bool)
    return proportion(whole, groups) if np.array_equal(whole, shares) else mean_share(shares, groups)


def estimate_of(rows: Rows | None) -> Estimate | None:
    """Accuracy at the last step; None without rows."""
    return proportion(rows.hits[:, -1], rows.group) if rows is not None else None


def budget_figures(
    what: str, entries: Sequence[Entry], section: Callable[[Result], Any], mark: Callable[[Result, Any], str] = lambda result, found: ""
) -> Iterator[Figure]:
    """For each data set: accuracy of runs stopped at each step against their cost, from a section's `by_step`. mark: behind a name."""
    for data in dict.fromkeys(entry.data for entry in entries):
        lines = []
        for k, entry in enumerate(entries):
            found = section(entry.result)
            if entry.data != data or not found:
                continue
            known = zip(step_costs(entry.result), found.by_step, strict=False)  # without costs, there is no point
            points = [cost_point(entry.result, macs, top1, f"{entry.name}, step {t}") for t, (macs, top1) in enumerate(known, start=1)]
            lines.append(Line(f"{entry.name}{mark(entry.result, found)}{bound(entry.result)}", k, tuple(points)))
        if lines:
            heading, title = "Robustness against budget", f"Accuracy {what}, {data}"
            yield Figure(heading, title, tuple(lines), macs_axis(lines), Axis(ACCURACY_AXIS, low=0), "Cost of the clean run.")
