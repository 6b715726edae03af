"""Folders as `run` writes them: a result.json with invented numbers, and rows if a test needs them."""

from pathlib import Path
from typing import Any

import numpy as np
from row_files import write_rows
from test_records import RESULT

from glimpsezoo.evaluation.rows import Measured, Rows, StoredUnit
from glimpsezoo.measures.result import Hashes, Result
from glimpsezoo.zoo.results import result_type

MEASURED = Measured(device="cpu", batch_size=1, workers=0, seconds=1, uncounted=(), paper_macs=None)


def estimate(value: float, n: int = 100) -> dict[str, Any]:
    return {"value": value, "low": max(0.0, value - 0.02), "high": min(1.0, value + 0.02), "n": n, "groups": n}


def result(
    name: str, *, top1: float = 0.9, eps: float | None = None, run: str = "abc", verdict: str | None = "not found", **changes: Any
) -> Result:
    """A result with two steps, one corruption, an anytime curve of two points and, with `eps`, an attack."""
    step = RESULT["accuracy"]["steps"][0]
    steps = [{**step, "step": t, "top1": estimate(top1 - 0.1 * (2 - t)), "macs": 5e6 * t} for t in (1, 2)]
    point = {**RESULT["anytime"]["curve"][0], "top1": estimate(top1 - 0.05), "macs_mean": 7e6}
    curve = [point, {**point, "rule": "fixed", "threshold": 2.0, "top1": estimate(top1), "macs_mean": 1e7}]
    attack = {
        **RESULT["attacks"][0],
        "members": [],
        "attack_converged": None,
        "eps": eps,
        "top1": estimate(0.31),
        "by_step": [estimate(0.3), estimate(0.31)],
        "exit_rule": None,
    }
    content = {
        **RESULT,
        "run": {**RESULT["run"], "id": run},
        "model": {**RESULT["model"], "name": name, "steps": 2, **of_its_own(name)},
        "accuracy": {**RESULT["accuracy"], "top1": estimate(top1), "steps": steps},
        "flops": {
            **RESULT["flops"],
            "macs": {"mean": 1e7, "p50": 1e7, "p95": 1e7, "max": 1e7},
            "steps": [{"step": 1, "macs": 5e6}, {"step": 2, "macs": 1e7}],
        },
        "anytime": {**RESULT["anytime"], "curve": curve, "area": 0.87},
        "corruptions": {
            **RESULT["corruptions"],
            "table": {"fog": [*[estimate(0.8 - 0.1 * k) for k in range(4)], None]},
            "mean": estimate(0.65),
            "by_step": [estimate(0.6), estimate(0.65)],
        },
        "attacks": [attack] if eps is not None else [],
        "masking": {"found": verdict == "found", "sure": not verdict.endswith("?"), "checks": {}} if eps is not None and verdict else None,
    }
    return result_type().model_validate(content)


def of_its_own(name: str) -> dict[str, Any]:
    """What tells models apart: weights and a recipe of their own."""
    model = RESULT["model"]
    return {"checkpoint": {**model["checkpoint"], "sha256": name}, "trained_on": {**model["trained_on"], "recipe": name}}


def rows(hits: list[int], ids: list[int] | None = None) -> Rows:
    """Rows of one step. Every image is its own group; all have the label 1."""
    n = len(hits)
    numbers, one = np.array(ids if ids is not None else range(n)), np.ones((n, 1))
    return Rows(
        id=numbers,
        group=numbers,
        label=np.ones(n, int),
        prediction=np.array(hits)[:, None],
        confidence=one,
        nll=one,
        top5=one.astype(bool),
        macs_by_step=one.astype(int),
        regions=one.astype(int),
        macs=np.ones(n, int),
        macs_by_phase=np.ones((n, 5), int),
        exit_step=np.ones(n, int),
    )


def put(folder: Path, found: Result, measured: Rows | None = None) -> Path:
    """Write a result, and rows if given, into a new folder."""
    folder.mkdir(parents=True)
    written = None if measured is None else write_rows(folder / "rows.parquet", StoredUnit(measured, MEASURED))
    found = found.model_copy(update={"hashes": Hashes(rows=written, content=None)})
    (folder / "result.json").write_text(found.to_json())
    return folder
