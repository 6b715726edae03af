"""From rows under corruptions and attacks to their sections of result.json: pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from glimpsezoo.attacks.base import Attack
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Attack as AttackSection
from glimpsezoo.records import Corruptions, Estimate, ExitRuleUsed, Unattacked
from glimpsezoo.statistics import mean_share, proportion
from glimpsezoo.store import Rows

SEVERITIES = 5
Table = Mapping[str, Mapping[int, Rows]]  # corruption -> severity -> rows


def corruptions_section(table: Table, clean: Rows | None, benchmark: Sequence[str]) -> Corruptions:
    """Accuracy under every corruption and severity, and the mean over those of the benchmark (over all, if none is of it).

    table: no entry is empty. clean: rows of the same images as they are, None where nobody has them. The mean is that of each image's
    share of conditions in which it was right, over the images that every condition has. Who made the images is left open.
    """
    counted = [name for name in table if name in benchmark] or list(table)
    rows = [each for name in counted for each in table[name].values()]
    ids = common_ids([*rows, *([clean] if clean is not None else [])])
    same = [rows_at(each, ids) for each in rows]
    shares = np.mean([each.hits for each in same], axis=0)  # [n, T]
    by_step = tuple(_share(shares[:, step], same[0].group) for step in range(shares.shape[1]))
    return Corruptions(
        implementation="",
        preset="",
        n=len(ids),
        clean=_cell(rows_at(clean, ids)) if clean is not None else None,
        table={name: tuple(_cell(found.get(severity)) for severity in range(1, SEVERITIES + 1)) for name, found in table.items()},
        mean=by_step[-1],
        by_step=by_step,
        mce=None,
    )


def errors_by_severity(table: Table) -> dict[str, list[float]]:
    """Top-1 errors at severities 1 to 5, of the corruptions that were measured at all five."""
    whole = {name: found for name, found in table.items() if len(found) == SEVERITIES}
    return {name: [float(1 - found[severity].hits[:, -1].mean()) for severity in sorted(found)] for name, found in whole.items()}


def attack_section(attack: Attack, evaluations: Sequence[Rows], clean: Rows, model: GlimpseModel[Any]) -> AttackSection:
    """Accuracy under an attack, the mean over the `evaluations` of each image.

    evaluations: rows of the attacked images, one entry a run with noise of its own. clean: of the same images, budget and exit rule
    without the attack. Both have images, and the same.
    """
    any_step = attack.settings.target == "any-step"
    shares = np.mean([_right(rows, any_step=any_step) for rows in evaluations], axis=0)  # [n, T]
    by_step = tuple(_share(shares[:, step], clean.group) for step in range(shares.shape[1]))
    said: dict[str, Any] = {**attack.described(model), "evaluations": len(evaluations)}
    rule = attack.exit_rule if attack.attacks_the_exit else None
    own = {key: value for key, value in attack.settings.model_dump(mode="json").items() if key not in said}
    return AttackSection(
        **said,
        settings=own,
        exit_rule=ExitRuleUsed(rule=rule.name, threshold=rule.parameters["threshold"]) if rule else None,
        n=len(clean),
        top1=by_step[-1],
        by_step=by_step,
        macs_mean=float(np.mean([rows.macs.mean() for rows in evaluations])),
        steps_mean=float(np.mean([rows.exit_step.mean() for rows in evaluations])),
        clean=Unattacked(
            top1=proportion(_right(clean, any_step=any_step)[:, -1], clean.group),
            macs_mean=float(clean.macs.mean()),
            steps_mean=float(clean.exit_step.mean()),
        ),
    )


def common_ids(rows: Sequence[Rows]) -> Int[ndarray, "n"]:
    """The ids of the images that all of these have."""
    ids = rows[0].id
    for each in rows[1:]:
        ids = np.intersect1d(ids, each.id)
    return ids


def rows_at(rows: Rows, ids: Int[ndarray, "n"]) -> Rows:
    """The rows of these images."""
    return rows.where(np.isin(rows.id, ids))


def _right(rows: Rows, *, any_step: bool) -> Bool[ndarray, "n T"]:
    """Whether the prediction of each step is right; with `any_step`, those of all steps up to it."""
    return np.logical_and.accumulate(rows.hits, axis=1) if any_step else rows.hits


def _share(shares: ndarray, groups: ndarray) -> Estimate:
    """Wilson's interval where every image was right or wrong as a whole."""
    whole = shares.astype(bool)
    return proportion(whole, groups) if np.array_equal(whole, shares) else mean_share(shares, groups)


def _cell(rows: Rows | None) -> Estimate | None:
    return proportion(rows.hits[:, -1], rows.group) if rows is not None else None
