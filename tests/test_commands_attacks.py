"""`run --measure` with attacks: what a result says of them, what several budgets and rounds are, and which models they suit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Answer, results

from glimpsezoo.zoo.results import read_result

UNTRAINED = ("--checkpoint", "none", "--limit", "20")
Ask = Callable[..., Answer]


def test_an_attack_is_described_whole_and_never_helps_on_average(run: Ask):
    words = ("mgnet", *TINY, *UNTRAINED, "--measure", "accuracy,pgd:16/255", "--set", "pgd.steps=3", "--set", "attacks.norm=Linf", "--json")
    (found,) = results(run(*words))
    (attack,) = found.attacks
    assert (attack.name, attack.norm, attack.eps, attack.steps) == ("pgd", "Linf", 16 / 255, 3)
    assert (attack.space, attack.target, attack.path, attack.exit_rule) == ("pixels", "final", "free", None)
    assert attack.step_size == pytest.approx(2.5 * 16 / 255 / 3)
    assert found.accuracy is not None
    assert attack.clean.top1.value == found.accuracy.top1.value
    assert attack.top1.value <= attack.clean.top1.value
    assert len(attack.by_step) == 2
    assert found.masking is not None
    assert set(found.masking.checks) >= {"gradient", "margin", "black_box"}


def test_an_attack_that_cannot_be_judged_has_no_verdict(run: Ask):
    words = ("mgnet", *TINY, *UNTRAINED, "--measure", "accuracy,pgd:16/255", "--set", "pgd.steps=2", "--set", "attacks.path=frozen")
    answer = run(*words)
    assert answer.status == 0, answer.err
    assert "not checked" in answer.out
    assert "not what masking judges" in " ".join(answer.out.split())
    (found,) = [read_result(path.read_text()) for path in Path("runs").glob("*/mgnet/result.json")]
    assert found.masking is None


def test_an_eps_in_levels_is_refused_before_anything_is_measured(run: Ask):
    answer = run("cnn4", *UNTRAINED, "--measure", "accuracy,pgd:8")
    assert answer.status == 2
    assert answer.err.rstrip().endswith("got 8: did you mean 8/255?")
    assert not Path("runs").exists()


def test_one_run_measures_an_attack_with_several_budgets(run: Ask):
    """The budgets are points of a curve."""
    texts = "accuracy,pgd:0.5:2,pgd:16/255:1,pgd:16/255:3,pgd:16/255:1,fgsm"
    answer = run("cnn4", *UNTRAINED, "--measure", texts, "--set", "pgd.steps=7")
    (found,) = [read_result(path.read_text()) for path in Path("runs").glob("*/cnn4/result.json")]
    assert [(attack.name, attack.eps, attack.steps) for attack in found.attacks] == [
        ("pgd", 0.5, 2),
        ("pgd", 16 / 255, 1),
        ("pgd", 16 / 255, 3),
        ("fgsm", 8 / 255, 1),
    ]
    assert found.attacks[2].top1.value <= found.attacks[1].top1.value
    lines = {line.strip().rpartition("  ")[0].strip() for line in answer.out.splitlines()}
    assert {"pgd Linf 0.5, 2 steps", "pgd Linf 16/255, 1 step", "pgd Linf 16/255, 3 steps", "fgsm"} <= lines
    assert answer.err.startswith("accuracy, pgd (3 budgets), fgsm of cnn4")
    assert "pgd Linf 16/255, 3 steps: Linf 16/255 in pixels, 3 steps, 20 images." in " ".join(answer.out.split())


def test_an_attack_on_the_glimpses_tells_where_they_went(run: Ask):
    words = ("mgnet", *TINY, *UNTRAINED, "--measure", "distract:16/255:2,sparse:3:4,random", "--json")
    (found,) = results(run(*words))
    distract, sparse, random = found.attacks
    assert (distract.target, distract.looks.moved.n) == ("looks", distract.n)
    assert distract.looks.moved.value > 0
    assert 0 < distract.looks.kept.value <= 1
    assert (sparse.norm, sparse.eps, sparse.looks) == ("L0", 3, None)
    assert (random.full_name, random.looks) == ("random Linf 8/255, 10 steps", None)


def test_an_attack_is_measured_for_the_models_of_a_run_that_it_suits_and_noted_for_the_others(run: Ask):
    answer = run("mgnet", "cnn4", *TINY, *UNTRAINED, "--measure", "distract:16/255:1,fgsm", "--json")
    mgnet, cnn4 = results(answer)
    assert [[attack.name for attack in found.attacks] for found in (mgnet, cnn4)] == [["distract", "fgsm"], ["fgsm"]]
    assert "cnn4: distract: expected a model that chooses where it looks" in answer.err
    assert "not measured" in answer.err


def test_the_slowdown_attack_reports_steps_and_macs_before_and_after(run: Ask):
    words = ("mgnet", *TINY, *UNTRAINED, "--measure", "slowdown:16/255", "--set", "slowdown.steps=3", "--set", "anytime.threshold=0.11")
    (found,) = results(run(*words, "--json"))
    (attack,) = found.attacks
    assert attack.exit_rule is not None
    assert (attack.exit_rule.rule, attack.exit_rule.threshold) == ("confidence", 0.11)
    assert attack.steps_mean >= attack.clean.steps_mean
    assert attack.macs_mean >= attack.clean.macs_mean
    assert "steps " in run(*words).out


def test_the_time_said_has_the_verdict_on_masking_in_it_until_that_is_known(run: Ask, monkeypatch: pytest.MonkeyPatch):
    from glimpsezoo.measures.gradient_masking import PASSES
    from glimpsezoo.run import work

    monkeypatch.setattr(work, "seconds_per_image", lambda *given: 1.0)
    words = ("cnn4", *UNTRAINED, "--measure", "pgd", "--set", "pgd.steps=2", "--set", "masking.images=3")
    attack = 2 * 3  # steps, each forward and backward
    assert f"about {round(20 * (1 + (1 + attack)) + 3 * PASSES)} s" in run(*words).err  # clean, attacked, judged
    assert "about 1 s (2 units measured already)" in run(*words).err


def test_the_worst_case_goes_on_in_rounds_until_it_has_converged(run: Ask, monkeypatch: pytest.MonkeyPatch):
    from glimpsezoo.measures import attacked

    quick = ("--set", "masking.images=3", "--set", "worst-case.steps=2", "--set", "worst-case.rounds=4", "--json")
    words = ("cnn4", *UNTRAINED, "--measure", "attacks", *quick)
    (found,) = results(run(*words))
    (attack,) = found.attacks
    assert (attack.name, attack.members, attack.n) == ("worst-case", ("apgd-margin", "apgd-ce", "square"), 20)
    assert attack.attack_converged.gain.n == 20
    monkeypatch.setattr(attacked, "is_converged", lambda gain, high: True)
    (settled,) = results(run(*words, "--fresh"))
    assert settled.attacks[0].settings["rounds"] == 2
    assert settled.attacks[0].attack_converged.converged
    monkeypatch.setattr(attacked, "is_converged", lambda gain, high: False)
    (on,) = results(run(*words, "--fresh"))
    assert on.attacks[0].settings["rounds"] == 4
    assert on.attacks[0].top1.value <= settled.attacks[0].top1.value
    assert not on.attacks[0].attack_converged.converged


def test_no_round_of_the_worst_case_leaves_its_images_in_memory(run: Ask, monkeypatch: pytest.MonkeyPatch):
    from glimpsezoo.conditions.attacks.worst_case import WorstCase
    from glimpsezoo.measures import attacked

    rounds: list[Any] = []
    whole = WorstCase.rounds
    monkeypatch.setattr(WorstCase, "rounds", lambda self: rounds.extend(found := whole(self)) or found)
    monkeypatch.setattr(attacked, "is_converged", lambda gain, high: True)
    run("cnn4", *UNTRAINED, "--measure", "worst-case", "--set", "masking.images=3", "--set", "worst-case.steps=1")
    assert len(rounds) == 4  # of which two are superfluous
    assert not any(each._changed for each in rounds)


def test_the_worst_case_attacks_a_few_of_the_images(run: Ask):
    quick = ("--set", "masking.images=3", "--set", "worst-case.steps=1", "--set", "worst-case.rounds=1", "--set", "worst-case.images=4")
    answer = run("cnn4", *UNTRAINED, "--measure", "worst-case:16/255", *quick)
    assert "worst-case: Linf 16/255 in pixels, worst of 3 attacks of 1 step, 4 images." in " ".join(answer.out.split())
    (found,) = [read_result(path.read_text()) for path in Path("runs").glob("*/cnn4/result.json")]
    assert (found.attacks[0].n, found.attacks[0].attack_converged) == (4, None)
