"""Tests of papers' claims on the evidence of cards: by seed, paired by image, with verdicts by the documented rules."""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from installed_plugins import installed
from row_files import read_rows, write_rows
from test_reproduction import PLUGIN, PROJECT

from glimpsezoo import GlimpseZooError
from glimpsezoo.evaluation.rows import StoredUnit
from glimpsezoo.measures.pairs import paired
from glimpsezoo.measures.statistics import Effect, over_seeds
from glimpsezoo.reports.claims import JudgedClaim, claim_cells
from glimpsezoo.reports.paper import as_rows, markdown
from glimpsezoo.workflows.claims import exits_at
from glimpsezoo.workflows.evidence import Zoo
from glimpsezoo.workflows.reproducing import reproduce
from glimpsezoo.zoo.papers import Claim
from glimpsezoo.zoo.results import read_result

ROOT = Path(__file__).parent.parent
ZOO = ROOT / "zoo_cards"
TABLE = '[[table]]\ntitle = "Table 1"\ncaption = "Digits"\nneeds = "time"\nrow = [{ method = "m", card = "cnn4.digits", printed = 98.0 }]\n'
AGAINST = 'a = { card = "mgnet.digits" }\nb = { card = "cnn4.digits" }'


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[JudgedClaim]]]:
    """Judges the claims of a TOML text with additional cards: `paper(text, *folders)`."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "glimpsezoo_made").mkdir()
    (tmp_path / "glimpsezoo_made" / "__init__.py").write_text(PLUGIN)

    def judge(text: str, *folders: Path) -> list[JudgedClaim]:
        (tmp_path / "glimpsezoo_made" / "made-2020.toml").write_text(TABLE + text)
        return list(reproduce(["made-2020", *map(str, folders)])[0].claims)

    with installed(tmp_path, monkeypatch):
        yield judge


def claim(test: str, more: str = "", sides: str = AGAINST) -> str:
    return f'[[claim]]\nquote = "q"\nplace = "p"\ntest = "{test}"\n{sides}\n{more}\n'


def another_seed(
    folder: Path, card: str, seed: int, *, wrong: int | None = None, recipe: Mapping[str, object] | None = None, **settings: object
) -> Path:
    """Write evidence as another seed might have it: `wrong` images are wrong at the last step (None changes no image)."""
    place = folder / f"{card}.seed-{seed}"
    place.mkdir()
    config = json.loads((ZOO / card / "config.json").read_text())
    config["trained"]["recipe"] |= {"seed": seed, **(recipe or {})}
    config["config"] |= settings
    (place / "config.json").write_text(json.dumps(config))
    unit = read_rows(ZOO / card / "rows.parquet")
    assert unit is not None
    prediction = unit.rows.prediction.copy()
    if wrong is not None:
        prediction[:wrong, -1] = (unit.rows.label[:wrong] + 1) % 10
    written = write_rows(place / "rows.parquet", StoredUnit(replace(unit.rows, prediction=prediction), unit.measured))
    result = json.loads((ZOO / card / "result.json").read_text()) | {"hashes": {"rows": written, "content": None}}
    (place / "result.json").write_text(json.dumps(result))
    return place


def test_a_claim_has_the_paired_test_of_the_cards_rows(paper: Callable[..., list[JudgedClaim]]) -> None:
    (judged,) = paper(claim("no worse"))
    rows = [read_rows(ZOO / card / "rows.parquet") for card in ("mgnet.digits", "cnn4.digits")]
    assert rows[0] is not None
    assert rows[1] is not None
    a, b = (each.rows.hits[:, -1] for each in rows if each)
    pair, turned = paired("a", "b", a, b, rows[0].rows.group), paired("b", "a", b, a, rows[0].rows.group)
    assert judged.effect == Effect(pair.difference, pair.low, pair.high, min(pair.p, turned.p))
    assert (judged.images, judged.data, judged.seeds_text(), judged.verdict()) == (2980, "digits, test", "1 seed", "reproduced")


def test_an_attack_that_is_measured_once_needs_no_number_of_steps(paper: Callable[..., list[JudgedClaim]]) -> None:
    sides = 'a = { card = "mgnet.digits", attack = "worst-case" }\nb = { card = "cnn4.digits", attack = "worst-case" }'
    (judged,) = paper(claim("better", sides=sides))
    ours, theirs = (read_result((ZOO / f"{name}.digits" / "result.json").read_text()).attacks[0].top1 for name in ("mgnet", "cnn4"))
    assert judged.effect is not None
    assert judged.effect.value == pytest.approx(ours.value - theirs.value)
    assert (judged.images, judged.verdict()) == (64, "reversed")
    assert "mgnet.digits under worst-case better than" in " ".join(claim_cells(judged))


@pytest.mark.parametrize(
    ("test", "more", "effect", "verdict"),
    [
        ("better", "", (0.01, 0.02), "reproduced"),
        ("better", "", (-0.01, 0.02), "not reproduced"),
        ("better", "", (-0.02, -0.01), "reversed"),
        ("no worse", "", (-0.02, -0.01), "not reproduced"),
        ("no worse", "", (-0.02, 0.01), "reproduced"),
        ("no worse", "", (0.01, 0.02), "reproduced"),
        ("no worse", "margin = 1.5", (-0.02, -0.01), "reproduced"),
        ("at least", "percent = 99", (-0.01, 0.02), "not reproduced"),
        ("at least", "percent = 99", (0.01, 0.02), "reproduced"),
        ("better", 'instead = "toys"', (0.01, 0.02), "not tested; on toys: reproduced"),
    ],
)
def test_a_verdict_follows_from_the_interval(test: str, more: str, effect: tuple[float, float], verdict: str) -> None:
    values = tomllib.loads(f'quote = "q"\nplace = "p"\ntest = "{test}"\n{AGAINST}\n{more}')
    found = Effect(sum(effect) / 2, *effect)
    assert JudgedClaim(Claim.parse(values, owner="claim"), found, (("0", found),)).verdict() == verdict


def test_a_seed_that_is_significantly_against_it_keeps_a_claim_from_being_reproduced() -> None:
    values = {"quote": "q", "place": "p", "test": "better", "a": {"card": "a"}, "b": {"card": "b"}}
    pooled, against, undecided = Effect(0.02, 0.01, 0.03), Effect(-0.02, -0.03, -0.01), Effect(-0.02, -0.05, 0.01)
    made = Claim.parse(values, owner="claim")
    assert JudgedClaim(made, pooled, (("0", pooled), ("1", against))).verdict() == "not reproduced"
    assert JudgedClaim(made, pooled, (("0", pooled), ("1", undecided))).verdict() == "reproduced"


def test_costs_are_judged_by_the_printed_digits(paper: Callable[..., list[JudgedClaim]]) -> None:
    sides = 'a = { card = "ranzato.jittered-mnist.2" }\nb = { card = "ranzato-fc.jittered-mnist" }'  # 3.069 times; 32.6 %
    factors = [("factor = 3", True), ("factor = 3.1", True), ("factor = 3.2", False), ("percent = 33", True), ("percent = 32", False)]
    judged = paper("".join(claim("cost", more, sides) for more, _ in factors))
    assert [each.verdict() for each in judged] == ["reproduced" if good else "not reproduced" for _, good in factors]
    assert (judged[0].effect_text(), judged[3].effect_text()) == ("3.07 times", "32.6 %")


def test_what_no_card_was_trained_for_is_not_tested_and_says_what_it_needs(paper: Callable[..., list[JudgedClaim]]) -> None:
    untrained = 'a = { card = "mgnet.imagenet100" }\nb = { card = "mgnet.imagenet100.ff-net" }\nneeds = "weeks"'
    words, test = paper('[[claim]]\nquote = "q"\nplace = "p"\nneeds = "a number"\n' + claim("better", "", untrained))
    assert (words.verdict(), words.missing) == ("not tested", "needs a number")
    assert (test.verdict(), test.missing) == ("not tested", "mgnet.imagenet100 is not trained: needs weeks")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (claim("better", "", 'a = { card = "mgnet.nothing" }\nb = { card = "cnn4.digits" }'), "got 'mgnet.nothing'"),
        (claim("better", "", 'a = { card = "mgnet.digits", step = 9 }\nb = { card = "cnn4.digits" }'), "9 steps of mgnet.digits"),
        (claim("better", "", 'a = { card = "mgnet.tmnist" }\nb = { card = "cnn4.digits" }'), "the same images"),
        (claim("better", "", 'a = { card = "mgnet.digits" }'), "needs b"),
        (claim("cost"), "needs factor or percent"),
        ('[[claim]]\nquote = "q"\nplace = "p"\n', "needs needs"),
    ],
)
def test_claims_that_cannot_be_tested_as_they_stand_are_errors(paper: Callable[..., list[JudgedClaim]], text: str, told: str) -> None:
    with pytest.raises(GlimpseZooError, match=told):
        paper(text)


def test_a_claim_of_a_card_whose_rows_are_gone_asks_for_them(paper: Callable[..., list[JudgedClaim]], tmp_path: Path) -> None:
    seed = another_seed(tmp_path, "cnn4.digits", 1)
    rows = (seed / "rows.parquet").rename(tmp_path / "rows")
    told = r"expected the rows of cnn4.digits \(seed 1\) beside its result, got none: measure it again with --update-card"
    with pytest.raises(GlimpseZooError, match=told):
        paper(claim("better"), seed)
    rows.rename(seed / "rows.parquet")
    (judged,) = paper(claim("better"), seed)
    assert [name for name, _ in judged.seeds] == ["0", "1"]


def test_seeds_of_a_card_are_pooled_and_all_told(paper: Callable[..., list[JudgedClaim]], tmp_path: Path) -> None:
    """Each seed of the baseline has 30 more wrong images than the one before; the single MGNet is compared with all three."""
    seeds = [another_seed(tmp_path, "cnn4.digits", seed, wrong=30 * seed) for seed in (1, 2)]
    (one,), (judged,) = paper(claim("better")), paper(claim("better"), *seeds)
    assert one.effect is not None
    assert judged.effect is not None
    assert [name for name, _ in judged.seeds] == ["0", "1", "2"]
    assert judged.seeds[0][1] == one.effect
    assert judged.effect.value == pytest.approx(np.mean([each.value for _, each in judged.seeds]))
    assert judged.seeds_text().startswith("1 seed against 3 seeds: -0.13, +")
    # The seeds differ by more than images explain, so an interval that resamples seeds is wider than that of any seed.
    assert judged.effect.high - judged.effect.low > max(each.high - each.low for _, each in judged.seeds)


def test_seeds_are_paired_by_number_where_both_sides_have_several(paper: Callable[..., list[JudgedClaim]], tmp_path: Path) -> None:
    mgnet = [another_seed(tmp_path, "mgnet.digits", seed) for seed in (1, 3)]
    cnn4 = [another_seed(tmp_path, "cnn4.digits", seed) for seed in (1, 2)]
    (judged,) = paper(claim("better"), *mgnet, *cnn4)
    assert [name for name, _ in judged.seeds] == ["0", "1"]
    (steps,) = paper(claim("better", "", 'a = { card = "mgnet.digits" }\nb = { card = "mgnet.digits", step = 1 }'), *mgnet)
    assert [name for name, _ in steps.seeds] == ["0", "1", "3"]


def test_trainings_without_a_common_seed_are_not_tested(
    paper: Callable[..., list[JudgedClaim]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mgnet = [another_seed(tmp_path, "mgnet.digits", seed) for seed in (1, 3)]
    cnn4 = [another_seed(tmp_path, "cnn4.digits", seed) for seed in (2, 4)]
    measured = Zoo._evidence  # the zoo's own trainings of both have seed 0
    monkeypatch.setattr(Zoo, "_evidence", lambda self, card: tuple(each for each in measured(self, card) if each.seed))
    (judged,) = paper(claim("better"), *mgnet, *cnn4)
    assert (judged.effect, judged.missing) == (None, "no training of mgnet.digits has the seed of one of cnn4.digits")


def test_rows_show_the_zoos_card_and_the_range_of_its_seeds(paper: Callable[..., list[JudgedClaim]], tmp_path: Path) -> None:
    seed = another_seed(tmp_path, "cnn4.digits", 1)
    result = json.loads((seed / "result.json").read_text())
    result["accuracy"]["steps"][0]["top1"] |= {"value": 0.95}
    (seed / "result.json").write_text(json.dumps(result))
    paper("", seed)
    (found,) = reproduce(["made-2020", str(seed)])
    (answer,) = found.tables[0].answers
    own = json.loads((ZOO / "cnn4.digits" / "result.json").read_text())["accuracy"]["top1"]["value"]
    assert answer.ours is not None
    assert answer.ours.value == own
    assert f"| 2 seeds: 95.00 to {100 * own:.2f} |" in markdown([found], "figures")
    assert as_rows([found])[0]["seeds"] == [own, 0.95]


def test_cards_of_one_name_that_are_no_seeds_of_one_another_are_errors(paper: Callable[..., list[JudgedClaim]], tmp_path: Path) -> None:
    longer = another_seed(tmp_path, "cnn4.digits", 1, recipe={"batch_size": 7})
    with pytest.raises(GlimpseZooError, match=r"another recipe in 'cnn4\.digits\.seed-1': give that card another name"):
        paper("", longer)
    wider = another_seed(tmp_path, "mgnet.digits", 1, alpha=0.5)
    with pytest.raises(GlimpseZooError, match=r"another recipe in 'mgnet\.digits\.seed-1'"):
        paper(claim("better"), wider)
    (tmp_path / "elsewhere").mkdir()
    twin, other = (another_seed(place, "cnn4.digits", 2) for place in (tmp_path, tmp_path / "elsewhere"))
    with pytest.raises(GlimpseZooError, match=r"one card 'cnn4\.digits' for each seed, got two of seed 2"):
        paper("", twin, other)


def test_a_recipe_may_name_what_another_leaves_to_the_model(paper: Callable[..., list[JudgedClaim]], tmp_path: Path) -> None:
    """The pyramid takes 2 levels for digits of 28 px by itself; the recipe of the second card says so."""
    named = another_seed(tmp_path, "pyramid-m3.plain-mnist.28", 1, recipe={"settings": {"levels": 2}}, levels=2)
    sides = 'a = { card = "pyramid-m3.plain-mnist.28" }\nb = { card = "pyramid-bl3.plain-mnist.28" }'
    (judged,) = paper(claim("no worse", sides=sides), named)
    assert [name for name, _ in judged.seeds] == ["0", "1"]
    shallower = another_seed(tmp_path, "pyramid-m3.plain-mnist.28", 2, levels=1)
    with pytest.raises(GlimpseZooError, match="another recipe"):
        paper(claim("no worse", sides=sides), shallower)


def test_two_trainings_are_no_sample_of_seeds_and_three_are() -> None:
    """Trainings differ by four points, which the images do not explain: only from three trainings on does the interval show it."""
    draw = np.random.default_rng(0)
    gains = (draw.random((3, 5000)) < np.array([[0.01], [0.05], [0.09]])).astype(int)
    two, three = over_seeds(gains[::2], np.arange(5000)), over_seeds(gains, np.arange(5000))
    assert two.value == pytest.approx(0.05, abs=0.01)
    assert three.value == pytest.approx(0.05, abs=0.01)
    assert two.high - two.low < 0.012
    assert three.high - three.low > 0.04
    assert two.p == three.p == pytest.approx(1 / 10_001)
    nothing = over_seeds(np.tile(np.resize([1, -1], 5000), (2, 1)), np.arange(5000))
    assert nothing.low < 0 < nothing.high
    assert nothing.p is not None
    assert nothing.p > 0.4


def test_exits_counted_from_the_whole_run_are_the_real_ones() -> None:
    """Simulated exits from the whole run's rows equal the measured exits of Ranzato's cascade."""
    folder = ZOO / "ranzato.jittered-mnist.2"
    curve = json.loads((folder / "result.json").read_text())["anytime"]["curve"]
    measured = next(point for point in curve if point["threshold"] == 0.95)
    unit = read_rows(folder / "rows.parquet")
    assert unit is not None
    counted = np.bincount(exits_at(unit.rows, 0.95), minlength=3) / len(unit.rows)
    assert counted == pytest.approx(measured["exits"], abs=1e-4)
