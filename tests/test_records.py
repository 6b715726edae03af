"""result.json: its keys are the documented ones, its JSON Schema is committed and true, and nothing unknown or unwritable gets in."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from glimpsezoo.measures.anytime import EqualAccuracy
from glimpsezoo.measures.pairs import Comparison, Pair
from glimpsezoo.measures.statistics import Estimate
from glimpsezoo.measures.threats import convergence_of, masking_text
from glimpsezoo.zoo.results import read_result, result_schema, result_type

SCHEMA_FILE = Path(__file__).parents[1] / "docs" / "result.schema.json"
WRITE_SCHEMA = (
    "python -c \"import glimpsezoo.zoo.results as r, pathlib; pathlib.Path('docs/result.schema.json').write_text(r.result_schema())\""
)

ESTIMATE = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100, "groups": 20}
PAIR = {
    "a": "oracle",
    "b": "learned",
    "n": 100,
    "only_a": 2,
    "only_b": 1,
    "difference": 0.01,
    "low": -0.01,
    "high": 0.03,
    "p": 0.875,
}
CLASSIFIED = {"top1": ESTIMATE, "top5": ESTIMATE, "nll": ESTIMATE, "ece": ESTIMATE}
RESULT: dict[str, Any] = {
    "schema": 1,
    "run": {
        "id": "abc",
        "command": "glimpsezoo run mgnet",
        "started": "2025-01-01T00:00:00Z",
        "finished": None,
        "seed": 0,
        "limit": None,
        "status": "done",
        "units": {"done": 1, "reused": 0},
    },
    "model": {
        "name": "mgnet",
        "plugin": "glimpsezoo-mgnet",
        "plugin_version": "0.1.0",
        "config": {"glimpses": 3},
        "parameters": 10,
        "steps": 3,
        "policy": "learned",
        "upper_bound": False,
        "sees": "full image",
        "checkpoint": {"uri": "mgnet.digits", "revision": None, "sha256": "00"},
        "trained_on": {"data": "digits", "settings": {}, "image_size": [64, 64], "recipe": "00", "seed": 1},
        "precision": "bf16",
        "compiled": True,
    },
    "data": {
        "name": "digits",
        "source": "sklearn",
        "revision": None,
        "fingerprint": "00",
        "split": "test",
        "examples": 100,
        "skipped": 0,
        "image_size": [64, 64],
        "channels": 1,
        "classes": 10,
        "transform": "as it is",
        "conversions": {"turned upright": 3},
        "inferred": {
            "classes": ["cat", "dog"],
            "splits": {"test": "Testing"},
            "columns": {"image": "img", "label": "kind"},
            "configuration": "small",
            "left_out": {"no image": "1 (notes.txt)"},
            "notes": ["the labels of test are mapped by name"],
        },
        "settings": {},
    },
    "environment": {
        "python": "3.11",
        "platform": "Linux",
        "cpu": "x",
        "device": "cpu",
        "threads": 2,
        "packages": {"torch": "2"},
        "commit": None,
    },
    "accuracy": {**CLASSIFIED, "steps": [{"step": 1, **CLASSIFIED, "macs": 5.0, "regions_mean": 1.0}], "ties": 2},
    "flops": {
        "n": 100,
        "images": "data",
        "macs": {"mean": 5.0, "p50": 5.0, "p95": 5.0, "max": 5.0},
        "flops_mean": 10.0,
        "paper_macs": {"convention": "paper", "value": 6.0},
        "phases": {"start": 0.0, "sense": 5.0, "fuse": 0.0, "locate": 0.0, "classify": 0.0},
        "steps": [{"step": 1, "macs": 5.0}],
        "uncounted": ["grid_sampler_2d"],
        "missing": [],
    },
    "anytime": {
        "curve": [{"rule": "confidence", "threshold": 0.9, "top1": ESTIMATE, "macs_mean": 4.0, "steps_mean": 1.5, "exits": [0.5, 0.5]}],
        "area": 0.5,
        "calibrated_on": "calibration",
        "equal_accuracy": {"baseline": "cnn4", "macs_ratio": 0.3, "low": 0.2, "high": 0.4, "reached": 1.0, "missing": []},
    },
    "corruptions": {
        "implementation": "x",
        "preset": "full",
        "n": 500,
        "clean": ESTIMATE,
        "table": {"fog": [ESTIMATE] * 4 + [None]},
        "mean": ESTIMATE,
        "by_step": [ESTIMATE],
        "mce": {"value": 90.0, "baseline": "cnn4"},
    },
    "attacks": [
        {
            "name": "pgd",
            "norm": "Linf",
            "eps": 0.1,
            "space": "pixels",
            "steps": 10,
            "step_size": 0.01,
            "restarts": 1,
            "eot": 1,
            "evaluations": 1,
            "target": "final",
            "path": "free",
            "members": ["apgd-margin", "apgd-ce", "square"],
            "attack_converged": {"converged": True, "gain": ESTIMATE},
            "looks": {"moved": ESTIMATE, "kept": ESTIMATE, "kept_clean": ESTIMATE},
            "surrogate": None,
            "settings": {"seed": 0},
            "exit_rule": {"rule": "confidence", "threshold": 0.9},
            "n": 500,
            "top1": ESTIMATE,
            "by_step": [ESTIMATE],
            "macs_mean": 5.0,
            "steps_mean": 1.0,
            "clean": {"top1": ESTIMATE, "macs_mean": 4.0, "steps_mean": 1.0},
        }
    ],
    "masking": {
        "found": False,
        "sure": True,
        "checks": {"huge_eps": {"share": 0.0, "low": 0.0, "high": 0.1, "n": 40, "limit": 0.2, "found": False}},
        "reported": None,
    },
    "smoothing": [
        {
            "sigma": 0.25,
            "n0": 100,
            "n": 1000,
            "alpha": 0.001,
            "images": 100,
            "largest_radius": 0.6,
            "abstained": ESTIMATE,
            "certified": [{"radius": 0.0, "top1": ESTIMATE}, {"radius": 0.25, "top1": ESTIMATE}],
            "acr": ESTIMATE,
            "clean": ESTIMATE,
        }
    ],
    "policies": [
        {
            "policy": "oracle",
            "upper_bound": True,
            "steps": [{"step": 1, "top1": ESTIMATE, "macs": 10.0, "against_own": PAIR}],
            "against_own": PAIR,
        }
    ],
    "speed": {
        "device": "cpu",
        "threads": 2,
        "exit_rule": {"rule": "confidence", "threshold": 0.9},
        "batches": [
            {
                "batch": 1,
                "exits": "leave",
                "median_ms": 1.0,
                "iqr_ms": 0.1,
                "images_per_s": 1000.0,
                "peak_memory": 4096,
                "gain": {"time": 1.5, "macs": 2.0, "share": 0.75},
            }
        ],
        "peak_memory": None,
    },
    "hashes": {"rows": "00", "content": None},
    "errors": [{"measure": "accuracy", "unit": "ab", "images": [0, 1000], "error": "broke"}],
    "missing": [],
    "notes": ["no anytime curve: no calibration images"],
}


def test_every_documented_key_survives_a_round_trip() -> None:
    result = read_result(json.dumps(RESULT))
    assert json.loads(result.to_json()) == RESULT
    assert read_result(result.to_json()) == result


def test_sections_not_asked_for_are_null_or_empty() -> None:
    bare = {key: RESULT[key] for key in ("schema", "run", "model", "data", "environment")}
    written = json.loads(result_type().model_validate(bare).to_json())
    assert {key: value for key, value in written.items() if key not in bare} == {
        "accuracy": None,
        "flops": None,
        "anytime": None,
        "corruptions": None,
        "attacks": [],
        "masking": None,
        "smoothing": [],
        "policies": [],
        "speed": None,
        "hashes": None,
        "errors": [],
        "missing": [],
        "notes": [],
    }


def test_results_of_before_have_no_interval_of_the_ratio_and_lack_no_formula() -> None:
    old = json.loads(json.dumps(RESULT))
    del old["missing"], old["flops"]["missing"]
    old["anytime"]["equal_accuracy"] = {"baseline": "cnn4", "macs_ratio": 0.3}
    found = result_type().model_validate(old)
    assert found.anytime is not None
    assert found.anytime.equal_accuracy == EqualAccuracy(baseline="cnn4", macs_ratio=0.3, low=None, high=None, reached=None)
    assert not found.at_least


def test_times_of_before_say_by_compacted_whether_images_exited() -> None:
    old = json.loads(json.dumps(RESULT))
    batch = {"batch": 1, "median_ms": 1.0, "iqr_ms": 0.1, "images_per_s": 1000.0}
    old["speed"] = {
        "device": "cpu",
        "threads": 2,
        "batches": [{**batch, "compacted": compacted} for compacted in (False, True)],
        "peak_memory": None,
    }
    found = result_type().model_validate(old).speed
    assert [each.exits for each in found.batches] == ["none", "leave"]
    assert read_result(result_type().model_validate(old).to_json()).speed == found


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("schema",), 2),
        (("run", "status"), "fine"),
        (("accuracy", "top2"), 0.5),
        (("model", "sees"), "half"),
        (("run",), None),
    ],
)
def test_what_the_schema_does_not_know_is_refused(where: tuple[str, ...], value: Any) -> None:
    changed = json.loads(json.dumps(RESULT))
    place = changed
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(ValidationError):
        result_type().model_validate(changed)


def test_the_section_of_a_measure_that_is_not_installed_is_kept() -> None:
    content = {**RESULT, "ood": {"auroc": 0.9}}
    assert json.loads(result_type().model_validate(content).to_json()) == json.loads(json.dumps(content))


def test_masking_is_told_beside_attacks_of_a_kind_that_it_is_about() -> None:
    given = RESULT["attacks"][0]
    kinds = [{"name": "pgd-paper", "space": "normalised"}, {}, {"path": "detached"}, {"norm": "L2"}, {"path": "frozen"}]
    attacks = [{**given, **kind} for kind in kinds]
    result = result_type().model_validate({**RESULT, "attacks": attacks})
    said = ["not checked", "not found", "not found", "not checked", "not checked"]
    assert [masking_text(result, attack) for attack in result.attacks] == said
    unjudged = result_type().model_validate({**RESULT, "attacks": attacks, "masking": None})
    assert {masking_text(unjudged, attack) for attack in unjudged.attacks} == {"not checked"}


def older(verdict: str, **checks: Any) -> Any:
    """A result from when one verdict was about the model and the attack's strength."""
    attack = {key: value for key, value in RESULT["attacks"][0].items() if key not in {"members", "attack_converged"}}
    return result_type().model_validate({**RESULT, "attacks": [attack], "masking": {"verdict": verdict, "checks": checks}})


@pytest.mark.parametrize(("gain", "high", "converged"), [(0.37, 0.51, False), (0.08, 0.18, False), (0.02, 0.08, True), (0.02, 0.11, False)])
def test_a_weak_attack_of_before_was_no_masking(gain: float, high: float, converged: bool) -> None:
    weak = {"attack": "pgd", "gain": gain, "low": 0.0, "high": high, "verdict": "unreliable"}
    found = older("unreliable", images={"n": 50, "right": 49, "verdict": "ok"}, black_box={"verdict": "ok"}, reported=weak)
    assert masking_text(found, found.attacks[0]) == "not found"
    settled = convergence_of(found, found.attacks[0])
    assert settled is not None
    assert (settled.converged, settled.gain.value, settled.gain.n) == (converged, gain, 49)
    assert read_result(found.to_json()).masking == found.masking


@pytest.mark.parametrize(("verdict", "said"), [("ok", "not found"), ("suspect", "not found?"), ("unreliable", "found")])
def test_a_verdict_of_before_is_read_as_found_or_not(verdict: str, said: str) -> None:
    for found in (older(verdict), older(verdict, margin={"verdict": verdict}, looks={"verdict": "ok"})):
        assert masking_text(found, found.attacks[0]) == said
        assert convergence_of(found, found.attacks[0]) is None
    assert older("unreliable", margin={"verdict": "unreliable"}).masking.by == ["margin"]


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Estimate(value=value, low=0, high=1, n=1, groups=1)


def test_a_result_cannot_be_changed() -> None:
    result = result_type().model_validate(RESULT)
    with pytest.raises(ValidationError):
        result.run.seed = 3  # type: ignore[misc]


def test_comparison_holds_every_pair_under_its_keys() -> None:
    pair = Pair(a="x", b="y", n=10, only_a=1, only_b=2, difference=-0.1, low=-0.3, high=0.1, p=0.5)
    written = json.loads(Comparison(run="abc", data="digits", pairs=(pair,)).to_json())
    assert written["schema"] == 1
    assert written["pairs"] == [
        {"a": "x", "b": "y", "n": 10, "only_a": 1, "only_b": 2, "difference": -0.1, "low": -0.3, "high": 0.1, "p": 0.5}
    ]


def test_the_committed_schema_is_the_generated_one() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json.loads(result_schema()), f"docs/result.schema.json is out of date: {WRITE_SCHEMA}"


def test_the_schema_demands_the_top_level_keys() -> None:
    assert set(json.loads(result_schema())["required"]) == set(RESULT)


def test_records_load_no_torch() -> None:
    code = "import sys, glimpsezoo.zoo.headline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
