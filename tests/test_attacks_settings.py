"""Settings of attacks: what users type, what the defaults are, and what results contain."""

import json

import pytest
from models_to_attack import TASK, Net, attack_of, trained_net

from glimpsezoo.conditions.attacks.catalogue import ATTACKS
from glimpsezoo.core.exits import Confidence, Fixed
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.threats import AttackRecord as Attack
from glimpsezoo.specs import Task

NAMES = [spec.name for spec in ATTACKS]


@pytest.mark.parametrize(("text", "eps"), [("4/255", 4 / 255), ("0.03", 0.03), (" 8/255 ", 8 / 255), (0.1, 0.1)])
def test_eps_is_a_number_or_a_fraction(text: str | float, eps: float) -> None:
    assert attack_of("pgd", eps=text).settings.eps == pytest.approx(eps)


@pytest.mark.parametrize("eps", ["4/0", "four", "0", "-0.1", "nan", "inf", "1/2/3"])
def test_another_eps_is_refused_in_one_line(eps: str) -> None:
    with pytest.raises(GlimpseZooError, match="eps") as error:
        attack_of("pgd", eps=eps)
    assert "\n" not in str(error.value)


def test_defaults() -> None:
    pgd = attack_of("pgd").settings
    assert (pgd.eps, pgd.steps, pgd.step) == pytest.approx((8 / 255, 10, 2 / 255))
    assert attack_of("pgd", norm="L2").settings.eps == 0.5
    assert attack_of("pgd", norm="L2", eps=2).settings.eps == 2
    assert attack_of("pgd", step_size="1/255").settings.step == pytest.approx(1 / 255)
    assert attack_of("fgsm", eps=0.2).settings.step == 0.2
    paper = attack_of("pgd-paper").settings
    assert (paper.eps, paper.step, paper.space) == pytest.approx((4 / 255, 1 / 255, "normalised"))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("fgsm", "steps", 2), ("pgd", "norm", "L1"), ("slowdown", "target", "final"), ("autoattack", "eot", 2), ("pgd-paper", "norm", "L2")],
)
def test_what_an_attack_fixes_cannot_be_set(name: str, key: str, value: object) -> None:
    with pytest.raises(GlimpseZooError, match=key):
        attack_of(name, **{key: value})


def test_restarts_want_a_random_start() -> None:
    with pytest.raises(GlimpseZooError, match="restarts=1"):
        attack_of("pgd", restarts=2, random_start=False)


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_says_what_the_result_stores(name: str) -> None:
    attack = attack_of(name, Confidence(0.9))
    said = attack.described(trained_net()[0])
    assert attack.name == said["name"] == name
    assert set(said) <= set(Attack.model_fields)
    assert said["step_size"] > 0
    assert json.loads(json.dumps(attack.parameters))["eps"] == attack.settings.eps


def test_the_exit_rule_is_a_parameter_where_it_is_attacked() -> None:
    rule = Confidence(0.9)
    assert attack_of("pgd", rule, target="exit").parameters["exit_rule"] == {"name": "confidence", "parameters": {"threshold": 0.9}}
    assert attack_of("pgd", rule).parameters["exit_rule"] is None
    assert attack_of("pgd", seed=3).parameters != attack_of("pgd").parameters


def test_what_a_model_cannot_serve_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    with pytest.raises(GlimpseZooError, match="several steps"):
        attack_of("slowdown", Confidence(0.9)).check(model)
    for rule in (None, Fixed()):
        with pytest.raises(GlimpseZooError, match="exit rule"):
            attack_of("pgd", rule, target="exit").check(model)
    with pytest.raises(GlimpseZooError, match="three classes"):
        attack_of("apgd-dlr").check(Net(Task((8, 8), 1, ("a", "b"))))
    model.stochastic = True
    pytest.importorskip("pyautoattack")
    with pytest.raises(GlimpseZooError, match="autoattack-rand"):
        attack_of("autoattack").check(model)
    monkeypatch.setattr("importlib.metadata.version", _missing)
    with pytest.raises(GlimpseZooError, match=r"pip install 'pyautoattack"):
        attack_of("autoattack").check(Net(TASK))


def _missing(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"eps": "8"}, r"at most 1 in Linf.*got 8: did you mean 8/255\?"),
        ({"eps": 1.5}, r"got 1.5: did you mean 1.5/255\?"),
        ({"eps": 300}, "got 300$"),
        ({"eps": "1e-9"}, "at least 1e-06, got 1e-09"),
        ({"eps": 0.1, "step_size": 2}, r"at most 2 eps \(0.2\).*got 2: did you mean 2/255\?"),
        ({"eps": 0}, "greater than 0"),
        ({"eps": -0.1}, "greater than 0"),
        ({"eps": float("inf")}, "finite"),
        ({"eps": float("nan")}, "finite"),
        ({"eps": 0.1, "step_size": float("nan")}, "finite"),
        ({"eps": 0.1, "step_size": 0}, "greater than 0"),
    ],
)
@pytest.mark.parametrize("name", ["pgd", "pgd-paper"])
def test_a_length_that_no_attack_can_spend_is_refused(name: str, given: dict[str, object], said: str) -> None:
    with pytest.raises(GlimpseZooError, match=said):
        attack_of(name, **given)


def test_an_eps_in_l2_is_refused_where_every_image_can_be_made_grey() -> None:
    model = Net(Task((8, 8), 1, ("a", "b", "c", "d")))
    attack_of("pgd", norm="L2", eps=4).check(model)
    grey = "which makes any image of 1 x 8 x 8 values plain grey"
    with pytest.raises(GlimpseZooError, match=rf"at most 4 in L2, {grey}, got 128: did you mean 128/255\?"):
        attack_of("pgd", norm="L2", eps=128).check(model)


def test_default_steps_go_with_any_budget() -> None:
    for name in NAMES:
        attack_of(name, Confidence(0.9), eps=1 if name == "sparse" else 0.1 / 255)
