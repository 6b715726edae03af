"""Several training seeds of one recipe: mean, spread and each; tests between recipes take the variance of seeds into account."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist, mean, stdev
from typing import Any

import numpy as np
import pytest
from command_line import Answer, make_card, rewrite
from result_files import result

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.result import TrainedOn
from glimpsezoo.measures.seeds import RecipePair, between_recipes, mean_over_seeds, student, student_quantile
from glimpsezoo.measures.shown import Entry
from glimpsezoo.measures.statistics import proportion
from glimpsezoo.reports.seeds import as_recipes, by_seeds, seeds_table

Ask = Callable[..., Answer]
RECIPE = {"batch_size": 8, "phase": [{"name": "all", "epochs": 1, "optimiser": "sgd", "lr": 0.1}]}


# The numbers


@pytest.mark.parametrize("freedom", [1, 2.3, 7.5, 100, 5000])
def test_students_t_is_that_of_scipy(freedom: float):
    stats = pytest.importorskip("scipy.stats")
    for value in (-30.0, -2.0, 0.0, 0.3, 4.0):
        assert student(value, freedom) == pytest.approx(stats.t.cdf(value, freedom), abs=1e-9)
    assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)


def drawn(draw: np.random.Generator, seeds: int, level: float, spread: float, images: np.ndarray) -> np.ndarray:
    """Whether trainings classify images correctly: easier and harder images, better and worse trainings, and chance."""
    latent = level + images + draw.normal(0, spread, (seeds, 1)) + draw.normal(0, 1, (seeds, len(images)))
    return (latent > 0).astype(float)


@pytest.mark.parametrize(("a", "b"), [(3, 3), (5, 5), (2, 4), (1, 4)])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("sources", [400, 100])
def test_the_interval_covers_the_true_difference(a: int, b: int, spread: float, sources: int):
    """The truth is known here: the difference between recipes, over all seeds and images. A source has one image, or four alike."""
    draw, covered, times = np.random.default_rng(0), 0, 400
    scale = NormalDist(0, (2 + spread**2) ** 0.5)
    truth = scale.cdf(1.8) - scale.cdf(1.6)
    groups = np.arange(400) % sources
    for _ in range(times):
        images = draw.normal(0, 1, sources)[groups]
        effect, _ = between_recipes(drawn(draw, a, 1.8, spread, images), drawn(draw, b, 1.6, spread, images), groups)
        covered += effect.low <= truth <= effect.high
    error = (0.95 * 0.05 / times) ** 0.5  # a standard error of these trials
    assert covered / times >= 0.95 - 3 * error
    if spread == 0.4:  # it is wider than needed only where seeds hardly differ
        assert covered / times <= 0.95 + 3 * error


def test_the_interval_over_images_alone_would_not_cover_it():
    """What this is for: with seeds that differ, a paired test of two single trainings is about these two, not about the recipes."""
    draw, covered, times = np.random.default_rng(0), 0, 400
    scale = NormalDist(0, (2 + 0.4**2) ** 0.5)
    truth = scale.cdf(1.8) - scale.cdf(1.6)
    for _ in range(times):
        images = draw.normal(0, 1, 400)
        gain = drawn(draw, 1, 1.8, 0.4, images)[0] - drawn(draw, 1, 1.6, 0.4, images)[0]
        half = 1.96 * gain.std() / 20
        covered += abs(gain.mean() - truth) <= half
    assert covered / times < 0.7


def test_p_is_that_of_the_claim_that_a_is_worse_and_the_two_orders_add_up():
    draw = np.random.default_rng(1)
    images = draw.normal(0, 1, 500)
    good, bad = drawn(draw, 3, 2.0, 0.05, images), drawn(draw, 4, 1.0, 0.05, images)
    (better, share), (worse, same) = (between_recipes(*pair, np.arange(500)) for pair in ((good, bad), (bad, good)))
    assert (better.value, better.low, better.high) == pytest.approx((-worse.value, -worse.high, -worse.low))
    assert better.p is not None
    assert worse.p is not None
    assert worse.p < 0.05 < better.p
    assert better.p + worse.p == pytest.approx(1)
    assert share == pytest.approx(same)
    assert 0 <= share <= 1


def test_trainings_that_agree_on_every_image_differ_by_nothing():
    hits = np.tile(np.resize([1.0, 0.0], 50), (3, 1))
    effect, share = between_recipes(hits, hits, np.arange(50))
    assert (effect.value, effect.low, effect.high, effect.p, share) == (0, 0, 0, 1, 0)
    with pytest.raises(GlimpseZooError, match="one of each"):
        between_recipes(hits[:1], hits[:1], np.arange(50))


def test_the_share_of_the_seeds_grows_with_their_spread():
    draw = np.random.default_rng(2)
    images = draw.normal(0, 1, 2000)
    shares = [
        between_recipes(*(drawn(draw, 5, level, spread, images) for level in (1.8, 1.6)), np.arange(2000))[1] for spread in (0.0, 0.5)
    ]
    assert shares[0] < 0.5 < 0.9 < shares[1]


def test_the_mean_over_seeds_has_an_interval_for_new_seeds():
    draw = np.random.default_rng(3)
    images = draw.normal(0, 1, 1000)
    each = [proportion(hits > 0, np.arange(1000)) for hits in drawn(draw, 4, 1.5, 0.5, images)]
    whole = mean_over_seeds(each)
    assert whole.value == pytest.approx(mean(one.value for one in each))
    assert whole.high - whole.low > 2 * max(one.high - one.low for one in each)  # these seeds differ by more than the images explain
    alike = mean_over_seeds([each[0]] * 4)
    assert (alike.low, alike.high) == pytest.approx((each[0].low, each[0].high), abs=0.003)


# The commands


def trained(folder: Path, seed: int, *, name: str, lr: float = 0.1) -> None:
    """A card as `train --seed` leaves it, with other weights for each seed."""
    card = make_card(folder, seed=int(1000 * lr) + seed)
    phase = {**RECIPE["phase"][0], "lr": lr}  # type: ignore[index]
    rewrite(card, name=name, trained={"recipe": {**RECIPE, "phase": [phase], **({"seed": seed} if seed else {})}})


@pytest.fixture
def desk(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recipes with two seeds each, and a card that no recipe trained."""
    monkeypatch.setattr("glimpsezoo.run.timing.seconds_of", lambda *_: 0.001)
    for name, lr in (("brisk", 0.1), ("quick", 0.2)):
        for seed in (0, 1):
            trained(here / "zoo_cards" / f"{name}{f'.seed-{seed}' if seed else ''}", seed, name=name, lr=lr)
    make_card(here / "zoo_cards" / "alone", seed=7)
    return here


def test_run_compare_and_report_show_mean_spread_and_each(say: Ask, desk: Path):
    cards = ("brisk", "brisk.seed-1", "quick", "quick.seed-1", "alone")
    ran = say("run", *cards, "--measure", "quick", "--limit", "50", "-o", "out")
    assert ran.status == 0, ran.err
    results = {name: json.loads((desk / "out" / name / "result.json").read_text()) for name in cards}
    seeds = {name: (each["model"]["trained_on"]["recipe"], each["model"]["trained_on"]["seed"]) for name, each in results.items()}
    assert seeds["alone"] == (None, None)
    assert [seeds[name][1] for name in cards[:4]] == [0, 1, 0, 1]
    assert seeds["brisk"][0] == seeds["brisk.seed-1"][0] != seeds["quick"][0]

    compared = say("compare", "out", "--json").json
    for name in ("brisk", "quick"):
        (found,) = (each for each in compared["seeds"] if each["model"] == name)
        each = [100 * results[card]["accuracy"]["top1"]["value"] for card in (name, f"{name}.seed-1")]
        assert (found["training_seeds"], found["noise_seeds"]) == ([0, 1], [0])
        spread = found["numbers"]["top-1 %"]
        assert spread["each"] == pytest.approx(each)
        assert (spread["mean"], spread["sd"]) == pytest.approx((mean(each), stdev(each)))
        assert (spread["low"], spread["high"]) == pytest.approx((min(each), max(each)))
    (tests,) = compared["comparisons"]
    pairs = {(pair["a"], pair["b"]): pair for pair in tests["recipes"]}
    assert set(pairs) == {(a, b) for a in ("brisk", "quick", "alone") for b in ("brisk", "quick", "alone") if a != b}
    assert (pairs["brisk", "alone"]["seeds_a"], pairs["brisk", "alone"]["seeds_b"]) == ([0, 1], [0])
    written = json.loads((desk / "out" / "comparison.json").read_text())["recipes"]
    assert {(pair["a"], pair["b"]): pair for pair in written} == pairs
    gap = [mean(results[card]["accuracy"]["top1"]["value"] for card in (name, f"{name}.seed-1")) for name in ("brisk", "quick")]
    assert pairs["brisk", "quick"]["difference"] == pytest.approx(gap[0] - gap[1])

    told = say("compare", "out").out
    for text in (ran.out, told, say("compare", "out", "--format", "markdown").out, say("compare", "out", "--format", "latex").out):
        flat = " ".join(text.split())
        assert "2 training seeds" in flat
        assert "brisk (2 training seeds) against quick (2 training seeds)" in flat
        assert "brisk.seed-1 against" not in flat  # the trainings of a recipe are not tested against each other, or one by one
    assert say("report", "out", "-o", "page.html", "--traces", "0").status == 0
    page = (desk / "page.html").read_text()
    assert "Over seeds" in page
    assert "2 training seeds" in page
    assert "brisk.seed-1" in page


def test_one_seed_each_is_tested_image_by_image_as_ever(say: Ask, desk: Path):
    ran = say("run", "brisk", "quick", "--measure", "accuracy", "--limit", "8", "-o", "out", "--json")
    assert ran.json["comparison"]["recipes"] == []
    assert len(ran.json["comparison"]["pairs"]) == 2
    told = say("compare", "out").out
    assert "training seed" not in told
    assert "brisk against quick" in " ".join(told.split())


def test_a_result_that_is_older_than_the_keys_asks_its_card(say: Ask, desk: Path):
    assert say("run", "brisk", "brisk.seed-1", "--measure", "accuracy", "--limit", "8", "-o", "out").status == 0
    for path in (desk / "out").glob("*/result.json"):
        content: Any = json.loads(path.read_text())
        del content["model"]["trained_on"]["recipe"], content["model"]["trained_on"]["seed"], content["hashes"]
        path.write_text(json.dumps(content))
    assert [each["training_seeds"] for each in say("compare", "out", "--json").json["seeds"]] == [[0, 1]]


def test_noise_seeds_are_another_dimension(say: Ask, desk: Path):
    (desk / "grid.toml").write_text('models = ["brisk", "brisk.seed-1"]\nlimit = 8\nseeds = [3, 4]\n')
    words = ("run", "--grid", "grid.toml", "--measure", "accuracy,fog:5", "-o", "out")
    record = say(*words, "--json").json
    (row,) = record["rows"]
    assert (row["model"], row["training_seeds"], row["noise_seeds"]) == ("brisk", [0, 1], [3, 4])
    assert len(row["numbers"]["corrupted %"]["each"]) == 2  # over training seeds, each the mean over noise seeds
    flat = " ".join(say(*words).out.split())
    assert "2 training seeds x 2" in flat
    (found,) = say("compare", "out", "--json").json["seeds"]
    assert (found["training_seeds"], found["noise_seeds"]) == ([0, 1], [3, 4])


def test_seeds_of_different_conditions_are_not_averaged():
    def under(seed: int, corruption: str) -> Entry:
        found = result("net")
        table = {corruption: found.corruptions.table["fog"]}
        corruptions, run = found.corruptions.model_copy(update={"table": table}), found.run.model_copy(update={"seed": seed})
        return Entry("net", found.model_copy(update={"corruptions": corruptions, "run": run}))

    fog, noise, more = under(4, "fog"), under(3, "gaussian_noise"), under(4, "gaussian_noise")
    assert [each.entries for each in by_seeds([fog, noise, more])] == [(fog,), (noise, more)]


def measured(title: str, seed: int, *, noise: int = 0, recipe: str = "r", data: str = "digits", right: int = 95) -> Entry:
    """A result with so many right of 100 images."""
    found = result(title.partition(", ")[0])
    trained_on = TrainedOn(data=data, settings={}, image_size=found.data.image_size, recipe=recipe, seed=seed)
    assert found.accuracy is not None
    top1 = proportion(np.arange(100) < right, np.arange(100))
    steps = tuple(step.model_copy(update={"top1": top1}) for step in found.accuracy.steps)
    return Entry(
        title,
        found.model_copy(
            update={
                "run": found.run.model_copy(update={"seed": noise}),
                "model": found.model.model_copy(update={"trained_on": trained_on}),
                "data": found.data.model_copy(update={"name": data}),
                "accuracy": found.accuracy.model_copy(update={"top1": top1, "steps": steps}),
            }
        ),
    )


def test_recipes_keep_their_names_and_what_else_tells_them_apart():
    entries = [
        measured(f"{name}.seed-{seed}, {data} test", seed, recipe=name, data=data)
        for data in ("digits", "mnist")
        for name in ("one", "two")
        for seed in (1, 2)
    ]
    assert [each.title for each in by_seeds(entries)] == [
        "one, digits test",
        "two, digits test",
        "one, mnist test",
        "two, mnist test",
    ]
    noisy = [measured(f"one.seed-{seed}, noise seed {noise}", seed, noise=noise) for seed in (1, 2) for noise in (0, 1)]
    assert [each.title for each in by_seeds(noisy)] == ["one"]
    others = [measured(f"one.seed-{seed}, run {recipe}", seed, recipe=recipe) for recipe in ("a", "b") for seed in (1, 2)]
    assert [each.title for each in by_seeds(others)] == ["one, run a", "one, run b"]
    alike = [measured(f"one.seed-{seed}, run {recipe}{seed}", seed, recipe=recipe) for recipe in ("a", "b") for seed in (1, 2)]
    assert [each.title for each in by_seeds(alike)] == ["one", "one, recipe 2"]


def test_a_mark_beside_a_recipe_is_said_once():
    entries = [measured(f"one.seed-{seed}", seed, data="mnist") for seed in (1, 2)]
    entries = [replace(each, result=each.result.model_copy(update={"data": result("one").data})) for each in entries]
    ((found,), _) = as_recipes(entries, [], [RecipePair.model_construct(a="one", b="two")])
    assert found.name.count("trained on") == 1


def test_noise_seeds_are_no_trainings_in_the_interval_of_a_mean():
    trainings = [measured(f"one.seed-{seed}", seed, right=right) for seed, right in ((1, 93), (2, 99))]
    often = [measured(f"one.seed-{seed}", seed, noise=noise, right=right) for seed, right in ((1, 93), (2, 99)) for noise in range(3)]
    pair = RecipePair.model_construct(a="one", b="two")
    found = [as_recipes(entries, [], [pair])[0][0].result.accuracy for entries in (trainings, often)]
    once, thrice = (each.top1 for each in found if each is not None)
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))


def test_seeds_of_one_accuracy_have_their_spread_and_not_the_interval_of_one():
    table = seeds_table([measured(f"one.seed-{seed}", seed) for seed in (1, 2)])
    assert table is not None
    row = dict(zip(table.headings, (cell.text for cell in table.rows[0]), strict=True))
    assert [text for heading, text in row.items() if heading.startswith("top-1")] == ["95.00 ± 0.00 (95.00 to 95.00)"]
    assert "±" not in row["MACs"]
