"""`run --measure`: early exits, corruptions and policies use the same units, tables and results as clean accuracy.

Attacks: test_commands_attacks.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import TINY, Answer, results
from PIL import Image

from glimpsezoo.data.limited import Held
from glimpsezoo.data.loading import open_data
from glimpsezoo.zoo.names import data_spec

UNTRAINED = ("--checkpoint", "none", "--limit", "20")
Ask = Callable[..., Answer]


def test_corruptions_are_measured_at_every_step_and_summed_up(run: Ask):
    (found,) = results(run("mgnet", *TINY, *UNTRAINED, "--measure", "accuracy,fog,brightness", "--json"))
    section = found.corruptions
    assert section is not None
    assert section.preset == "64"
    assert section.implementation.startswith("glimpsezoo ")
    assert {name: len(cells) for name, cells in section.table.items()} == {"fog": 5, "brightness": 5}
    cells = [cell for row in section.table.values() for cell in row if cell]
    assert section.mean.value == pytest.approx(np.mean([cell.value for cell in cells]))
    assert section.mean.low <= section.mean.value <= section.mean.high
    assert len(section.by_step) == 2
    assert section.by_step[-1] == section.mean
    assert found.accuracy is not None
    assert section.clean.value == found.accuracy.top1.value  # the same images
    assert (section.n, section.mce) == (20, None)


def test_one_severity_alone_leaves_the_others_open(run: Ask):
    (found,) = results(run("cnn4", *UNTRAINED, "--measure", "fog:2,fog:4", "--json"))
    assert found.corruptions is not None
    assert [cell is not None for cell in found.corruptions.table["fog"]] == [False, True, False, True, False]
    assert found.accuracy is None


def test_mce_is_relative_to_the_run_s_feed_forward_model(run: Ask):
    benchmark = ("--measure", "corruptions", "--limit", "10")
    mgnet, cnn4 = results(run("mgnet", "cnn4", *TINY, "--checkpoint", "none", *benchmark, "--json"))
    assert mgnet.corruptions is not None
    assert cnn4.corruptions is not None
    assert cnn4.corruptions.mce is not None
    assert (cnn4.corruptions.mce.baseline, cnn4.corruptions.mce.value) == ("cnn4", pytest.approx(100))
    assert mgnet.corruptions.mce is not None
    errors = {
        result.model.name: {name: sum(1 - cell.value for cell in cells if cell) for name, cells in result.corruptions.table.items()}
        for result in (mgnet, cnn4)
        if result.corruptions
    }
    by_hand = 100 * np.mean([errors["mgnet"][name] / errors["cnn4"][name] for name in errors["cnn4"]])
    assert len(errors["cnn4"]) == 15
    assert mgnet.corruptions.mce.value == pytest.approx(by_hand)


def test_a_baseline_of_mce_without_all_of_the_benchmark_is_refused(run: Ask):
    (found,) = results(run("cnn4", *UNTRAINED, "--measure", "fog", "--output", "before", "--json"))
    answer = run("cnn4", *UNTRAINED, "--measure", "corruptions", "--set", "corruptions.baseline=before/cnn4/result.json")
    assert found.corruptions is not None
    assert (answer.status, len(answer.err.splitlines())) == (2, 1)
    assert "got 'before/cnn4/result.json' without gaussian_noise, shot_noise, impulse_noise, ...: " in answer.err


def test_a_run_of_robustness_alone_prints_its_numbers(run: Ask):
    words = ("cnn4", *UNTRAINED, "--measure", "fog:3,pgd:4/255:2")
    (found,) = results(run(*words, "--json"))
    answer = run(*words)
    assert found.corruptions is not None
    assert answer.err.startswith("fog (1 condition), pgd of cnn4")
    row = next(line for line in answer.out.splitlines() if line.startswith("cnn4"))
    for value in (found.corruptions.mean.value, found.attacks[0].top1.value):
        assert f"{100 * value:.1f} (" in row


def test_images_that_are_held_are_read_without_workers(run: Ask, monkeypatch: pytest.MonkeyPatch):
    """Worker processes do not share held images and would read them again under every condition."""
    from glimpsezoo.run import portions

    real, seen = portions.run_units, set()

    def noted(job, config, *given, **more):
        seen.add((type(job.data) is Held, config.workers))
        return real(job, config, *given, **more)

    monkeypatch.setattr(portions, "run_units", noted)
    results(run("cnn4", *UNTRAINED, "--measure", "fog:1,fog:2", "--workers", "1", "--json"))
    assert seen == {(False, 1), (True, 0)}


def test_bad_images_are_skipped_in_calibration_and_where_speed_is_measured_too(run: Ask, monkeypatch: pytest.MonkeyPatch):
    from glimpsezoo.measures import calibration, speed

    seen = []
    found, told = calibration.calibrate, speed.speed_section
    monkeypatch.setattr(calibration, "calibrate", lambda *given: seen.append(given[-1].on_bad_image) or found(*given))
    monkeypatch.setattr(speed, "speed_section", lambda *given, **more: seen.append(more["on_bad_image"]) or told(*given, **more))
    few = ("--set", "speed.batches=64", "--set", "speed.repeats=2")
    results(run("mgnet", *TINY, *UNTRAINED, "--measure", "anytime,speed", *few, "--on-bad-image", "skip", "--json"))
    assert seen == ["skip", "skip"]


def test_times_of_early_exits_need_no_other_measure(run: Ask):
    few = ("--set", "speed.batches=1,64", "--set", "speed.repeats=2")
    mgnet, cnn4 = results(run("mgnet", "cnn4", *TINY, *UNTRAINED, "--measure", "speed", *few, "--json"))
    alone, together = ("none", "leave", "stay"), ("none", "leave", "stay", "join")
    assert [(each.batch, each.exits) for each in mgnet.speed.batches] == [*((1, way) for way in alone), *((64, way) for way in together)]
    assert mgnet.speed.exit_rule.rule == "confidence"
    assert [(each.batch, each.exits) for each in cnn4.speed.batches] == [(1, "none"), (64, "none")]
    assert cnn4.speed.exit_rule is None
    chosen = ("--set", "anytime.rule=margin", "--set", "anytime.threshold=0.25")
    (found,) = results(run("mgnet", *TINY, *UNTRAINED, "--measure", "speed", *few, *chosen, "--json"))
    assert (found.speed.exit_rule.rule, found.speed.exit_rule.threshold) == ("margin", 0.25)


def test_calibration_is_stored_and_never_done_twice(run: Ask, monkeypatch: pytest.MonkeyPatch):
    from glimpsezoo.measures import calibration

    words = ("mgnet", *TINY, *UNTRAINED, "--measure", "anytime", "--json")
    (first,) = results(run(*words))
    with monkeypatch.context() as patch:
        patch.setattr(calibration, "calibrate", lambda *given, **more: pytest.fail("calibrated again"))
        (again,) = results(run(*words))
        (fewer,) = results(run(*words, "--set", "anytime.points=2"))
    assert again.anytime == first.anytime
    assert len(fewer.anytime.exits) < len(first.anytime.exits)
    monkeypatch.setattr(calibration, "calibrate", lambda *given, **more: pytest.fail("calibrated again"))
    with pytest.raises(pytest.fail.Exception):
        run(*words, "--fresh")


def test_the_anytime_curve_comes_from_real_exits_and_thresholds_of_the_calibration_split(run: Ask):
    words = ("mgnet", "cnn4", *TINY, *UNTRAINED, "--measure", "accuracy,flops,anytime", "--set", "anytime.points=3")
    mgnet, cnn4 = results(run(*words, "--json"))
    assert mgnet.anytime is not None
    assert cnn4.anytime is not None
    *early, whole = mgnet.anytime.exits
    assert 1 <= len(early) <= 3
    assert {point.rule for point in early} == {"confidence"}
    assert mgnet.accuracy is not None
    first = next(point for point in mgnet.anytime.curve if point.rule == "fixed")
    step = mgnet.accuracy.steps[0]
    assert (first.threshold, first.top1.value, first.macs_mean) == (1.0, step.top1.value, step.macs)
    assert [point.threshold for point in mgnet.anytime.curve if point.rule == "fixed"] == [1.0, 2.0]
    assert (whole.rule, whole.threshold, whole.exits) == ("fixed", 2.0, (0.0, 1.0))
    assert early[0].macs_mean < whole.macs_mean
    assert mgnet.anytime.calibrated_on == "calibration"
    assert mgnet.anytime.equal_accuracy is not None
    assert mgnet.anytime.equal_accuracy.baseline == "cnn4"
    assert (len(cnn4.anytime.curve), cnn4.anytime.equal_accuracy) == (1, None)


def test_all_rules_can_be_asked_for(run: Ask):
    for rule in ("margin", "entropy", "patience"):
        words = ("mgnet", *TINY, "--set", "glimpses=3", *UNTRAINED, "--measure", "anytime", "--set", f"anytime.rule={rule}", "--json")
        (found,) = results(run(*words))
        assert found.anytime is not None
        assert {point.rule for point in found.anytime.curve} == {rule, "fixed"}


def test_a_stopped_run_goes_on_where_it_was(run: Ask, monkeypatch: pytest.MonkeyPatch):
    words = ("cnn4", *UNTRAINED, "--measure", "accuracy,fog,pgd")
    from glimpsezoo.run import portions

    real, seen = portions.run_units, []

    def stops(*given, **more):
        seen.append(given)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(*given, **more)

    monkeypatch.setattr(portions, "run_units", stops)
    assert run(*words).status == 130
    monkeypatch.setattr(portions, "run_units", real)
    again = run(*words)
    assert "4 units measured, 3 reused" in again.err  # clean and two severities were done
    assert "(3 units measured already)" in again.err
    assert "0 units measured, 7 reused" in run(*words).err


def test_a_failed_condition_leaves_the_others(run: Ask, monkeypatch: pytest.MonkeyPatch):
    from glimpsezoo.conditions.corruptions.condition import Corruption

    real = Corruption.apply

    def fails(self, images, labels, ids, model):
        if self.severity == 3:
            raise ValueError("no fog today")
        return real(self, images, labels, ids, model)

    monkeypatch.setattr(Corruption, "apply", fails)
    answer = run("cnn4", *UNTRAINED, "--measure", "accuracy,fog", "--json")
    assert answer.status == 1
    (found,) = answer.json["results"]
    assert [(error["measure"], error["error"]) for error in found["errors"]] == [("corruptions", "no fog today")]
    assert [cell is None for cell in found["corruptions"]["table"]["fog"]] == [False, False, True, False, False]
    assert found["run"]["status"] == "failed"
    assert found["errors"][0]["unit"]


def test_images_that_are_too_small_to_corrupt_are_refused(run: Ask, tmp_path: Path):
    for label in ("a", "b"):
        for index in range(12):
            path = tmp_path / "faces" / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((24, 24), 20 * index, np.uint8)).save(path)
    words = ("timm:test_resnet", "--data", f"folder:{tmp_path / 'faces'}", "--set", "data.size=24", "--checkpoint", "none")
    asked = run(*words, "--measure", "corruptions")
    assert (asked.status, "from 32 px, got 24 x 24" in asked.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--measure", "pgd:many"), ("eps", "expected a number or a fraction such as 8/255")),
        (("--measure", "pgd:0"), ("eps", "greater than 0")),
        (("--measure", "pgd:4/255:many"), ("steps", "valid integer")),
        (("--measure", "pgd:4/255:5:5"), ("pgd expects an eps and a number of steps, got 'pgd:4/255:5:5': write pgd:4/255:100, say",)),
        (("--measure", "fog:7"), ("fog expects a severity from 1 to 5, got '7'",)),
        (("--measure", "fogg"), ("--measure expects any of", "did you mean 'fog'?")),
        (("--measure", "pdg"), ("--measure expects any of", "did you mean 'pgd'?")),
        (("--measure", "slowdown"), ("cnn4: slowdown: expected a model of several steps",)),
        (("--measure", "distract"), ("cnn4: distract: expected a model that chooses where it looks", "got one of a single step")),
        (("--measure", "pgd", "--set", "attacks.epsilon=1"), ("--set attacks.epsilon expects a setting of pgd", "did you mean 'eps'?")),
        (("--measure", "accuracy", "--set", "pgd.steps=5"), ("--set pgd.steps expects pgd to be measured",)),
        (("--measure", "accuracy", "--set", "anytime.points=3"), ("--set anytime.points expects anytime to be measured: name it",)),
        (("--measure", "pgd", "--set", "anytime.accuracy=0.99999"), ("--set anytime.accuracy expects anytime to be measured",)),
        (("--measure", "accuracy", "--set", "smoothing.n=20"), ("--set smoothing.n expects smoothing to be measured",)),
        (("--measure", "accuracy", "--set", "speed.repeats=2"), ("--set speed.repeats expects speed to be measured",)),
        (("--measure", "accuracy", "--set", "policies.names=centre"), ("--set policies.names expects policies to be measured",)),
        (("--measure", "accuracy", "--set", "masking.images=3"), ("--set masking.images expects attacks to be measured",)),
        (("--measure", "anytime", "--set", "anytime.rule=fixed"), ("anytime.rule expects a rule with a threshold, got 'fixed'",)),
        (("--measure", "anytime", "--set", "anytime.rule=confidant"), ("exit rule", "did you mean 'confidence'?")),
        (("--measure", "anytime", "--set", "anytime.macs=5", "--set", "anytime.accuracy=.9"), ("one of accuracy, macs and threshold",)),
        (("--measure", "corruptions", "--set", "corruptions.baseline=alexnet"), ("1000 classes at 224 px, got 10 at 64 x 64",)),
        (("--measure", "corruptions", "--set", "corruptions.baseline=nowhere"), ("a result.json or 'alexnet', got 'nowhere'",)),
        (("--measure", "fog", "--set", "corruptions.baseline=cnn4"), ("expects all 15 corruptions of the benchmark", "got 1: add")),
        (("--measure", "fog:1", "--set", "corruptions.baseline=cnn4"), ("at every severity", "got 0: add corruptions to --measure")),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(run: Ask, tmp_path: Path, words: tuple[str, ...], says: tuple[str, ...]):
    answer = run("cnn4", *UNTRAINED, *words)
    assert answer.status == 2
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    for text in says:
        assert text in line
    assert not (tmp_path / "runs").exists()


def test_published_images_take_the_place_of_our_corruptions(run: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = open_data(data_spec("digits"), "digits", "test", {})
    for severity in range(1, 6):
        for index in range(0, 300, 5):  # a digit stands at five places
            example = data[index]
            path = tmp_path / "published" / "fog" / str(severity) / data.task.classes[example.label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((example.image[0] * 255 / severity).byte().numpy()).save(path)
    published = ("cnn4", "--checkpoint", "none", "--corrupted-dir", tmp_path / "published")
    (found,) = results(run(*published, "--measure", "accuracy,fog", "--limit", "20", "--json"))
    section = found.corruptions
    assert section is not None
    assert (section.implementation, section.preset, section.clean, section.n) == ("published images in published", "published", None, 20)
    assert all(cell and cell.n == 20 for cell in section.table["fog"])
    forgotten: list[str] = []
    monkeypatch.setattr(Held, "forget", lambda held: forgotten.append(held.info.split))
    both = results(run("cnn4", "mgnet", *TINY, *published[1:], "--measure", "fog:1,fog:2", "--limit", "20", "--json"))
    assert both[0].corruptions is not None
    assert both[0].corruptions.table["fog"][0] == section.table["fog"][0]
    assert len(forgotten) == 2  # the images of each severity, after the second model
    absent = run(*published, "--measure", "snow")
    assert (absent.status, "expects a folder snow" in absent.err) == (2, True)
    nothing = run(*published, "--measure", "accuracy")
    assert (nothing.status, "expects corruptions to be measured" in nothing.err) == (2, True)


def test_a_run_follows_the_oracle_where_there_are_labels(run: Ask):
    words = ("mgnet", *TINY, *UNTRAINED, "--set", "policy=oracle")
    (found,) = results(run(*words, "--measure", "accuracy,flops,anytime,fog:1", "--json"))
    assert found.anytime is not None
    assert found.corruptions is not None
    refused = "expected a model that chooses where it looks without labels"
    for measure in ("speed", "smoothing:0.25", "fgsm"):
        answer = run(*words, "--measure", measure)
        assert (answer.status, f"{measure.partition(':')[0]}: {refused}" in answer.err) == (2, True)
    answer = run.func("check", "mgnet", *TINY, "--set", "policy=oracle")
    assert (answer.status, f"check: {refused}" in answer.err) == (2, True)


def test_what_the_policies_stored_says_what_rounding_may_change_like_any_unit(run: Ask):
    few = (*TINY, "--checkpoint", "none", "--limit", "10", "--json")
    run("mgnet", *few, "--measure", "policies", "--set", "policies.names=centre")
    answer = run("mgnet", *few, "--measure", "accuracy", "--set", "policy=centre")
    assert "0 units measured, 1 reused" in answer.err
    (found,) = results(answer)
    assert found.accuracy is not None
    assert found.accuracy.ties is not None


def test_policies_are_compared_with_the_learned_one_and_stored_like_any_unit(run: Ask):
    asked = ("--measure", "policies", "--set", "policies.names=random,coarse-to-fine,oracle")
    answer = run("mgnet", "ranzato", "cnn4", *UNTRAINED, "--set", "glimpses=2", "--set", "mgnet.backbone=cnn4", *asked, "--json")
    mgnet, ranzato, cnn4 = results(answer)
    assert [each.policy for each in mgnet.policies] == ["learned", "random", "coarse-to-fine", "oracle"]
    assert [each.policy for each in ranzato.policies] == ["learned", "random", "oracle"]  # its regions have one size
    assert any("cannot follow the policy 'coarse-to-fine'" in note for note in ranzato.notes)
    assert cnn4.policies == ()
    learned, random, _, oracle = mgnet.policies
    assert (learned.against_own, oracle.upper_bound, random.upper_bound) == (None, True, False)
    assert (random.against_own.a, random.against_own.b, random.against_own.n) == ("random", "learned", 20)
    first, last = random.steps
    assert (first.top1, first.macs) == (learned.steps[0].top1, learned.steps[0].macs)  # the first look is the model's own
    assert (first.against_own.difference, first.against_own.p) == (0, 1)
    assert last.against_own == random.against_own
    assert oracle.steps[1].macs > 5 * learned.steps[1].macs  # nine looks, and the one that is taken
    words = (
        "mgnet",
        *UNTRAINED,
        "--set",
        "glimpses=2",
        "--set",
        "backbone=cnn4",
        "--set",
        "policy=random",
        "--measure",
        "accuracy",
        "--json",
    )
    (alone,) = results(run(*words))
    assert (alone.run.units.done, alone.run.units.reused) == (0, 1)
    assert [step.top1 for step in alone.accuracy.steps] == [step.top1 for step in random.steps]
    assert alone.model.policy == "random"
