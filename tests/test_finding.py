"""The sentence of a report: it says what the paired tests say, and no more."""

import re

import pytest
from result_files import result

from glimpsezoo.measures.pairs import Pair
from glimpsezoo.measures.shown import Entry
from glimpsezoo.reports.finding import findings, headline


def entry(name: str, top1: float, macs: float, data: str = "digits") -> Entry:
    found = result(name, top1=top1)
    cost = found.flops.model_copy(update={"macs": found.flops.macs.model_copy(update={"mean": macs})})
    return Entry(name, found.model_copy(update={"flops": cost, "data": found.data.model_copy(update={"name": data})}))


def paired(entries: list[Entry], *close: str) -> list[Pair]:
    """Every ordered pair; `close` are not significantly worse than any other."""
    found = []
    for a in entries:
        for b in entries:
            gain = a.result.accuracy.top1.value - b.result.accuracy.top1.value
            p = 0.4 if a.name in close or gain >= 0 else 0.001
            bounds = {"low": gain - 0.01, "high": gain + 0.01}
            if a is not b:
                found.append(Pair(a=a.name, b=b.name, n=100, only_a=1, only_b=1, difference=gain, p=p, **bounds))
    return found


def test_one_that_is_better_than_all_others_is_called_so_with_its_price():
    models = [entry("small", 0.8, 1e6), entry("large", 0.9, 4e6), entry("old", 0.7, 2e6)]
    (said,) = findings(models, paired(models))
    assert said.startswith("large is significantly more accurate than both others; the next is small")
    assert "+10.00 points" in said
    assert said.endswith("needs 4 times its MACs.")


def test_the_cheapest_of_those_that_are_not_worse_is_named():
    models = [entry("small", 0.89, 1e6), entry("twin", 0.885, 1e6), entry("large", 0.9, 4e6), entry("old", 0.7, 1e5)]
    (said,) = findings(models, paired(models, "small", "twin"))
    assert said.startswith("small is not significantly worse than large (-1.00 points")
    assert said.endswith("needs 0.25 times its MACs.")
    assert "old" not in said


def test_the_best_may_be_the_cheapest_too():
    models = [entry("best", 0.9, 1e6), entry("large", 0.89, 4e6)]
    (said,) = findings(models, paired(models, "large"))
    assert re.match(r"best is the cheapest of the 2 most accurate models; the next, large, is not significantly worse \(-1.00", said)


@pytest.mark.parametrize("unknown", [False, True])
def test_it_says_that_none_is_better_or_cheaper(unknown: bool):
    models = [entry("a", 0.9, 1e6), entry("b", 0.89, 2e6 if unknown else 1e6)]
    if unknown:  # a lower bound is no cost
        models[1] = Entry("b", models[1].result.model_copy(update={"missing": ("an operation",)}))
        assert models[1].result.at_least
    (said,) = findings(models, paired(models, "b"))
    assert said == "No significant difference in accuracy between a and b: none is shown to be better or cheaper."


def test_without_a_test_nothing_is_called_significant():
    models = [entry("a", 0.9, 1e6), entry("b", 0.7, 1e6), entry("c", 0.6, 1e6)]
    (said,) = findings(models, [])
    assert "no test says whether by chance" in said
    assert "significant" not in said
    (said,) = findings(models, [pair for pair in paired(models) if "c" not in (pair.a, pair.b)])
    assert re.match(r"a is significantly more accurate than b \(\+20\.00 points, \+.* to \+.*, one-sided p = 0\.001\)", said)
    assert said.endswith("(1 more could not be tested).")
    (said,) = findings(models[:1], [])
    assert said == "a classifies 90.0 (88.0-92.0) % of the images correctly at 1.000 M MACs per image."


def cells(name: str, top1: float, macs: float, *noisy: float) -> list[Entry]:
    """A model in the cells of a grid: twice with the same clean images, then with the accuracies of other noise."""
    own = entry(name, top1, macs)
    others = [entry(name, each, macs) for each in noisy]
    return [Entry(f"{name}, cell {place}", each.result) for place, each in enumerate([own, own, *others])]


def test_a_model_in_several_cells_of_a_grid_counts_once():
    best, other = cells("a", 0.9, 1e6, 0.89), cells("b", 0.7, 2e6)
    tests = [pair for pair in paired([*best, *other]) if pair.a[0] != pair.b[0]]
    (said,) = findings([*best, *other], tests)
    assert said.startswith("a, cell 0 is significantly more accurate than b, cell 0 (")
    assert "tested" not in said
    (said,) = findings([*best, *other, entry("c", 0.6, 1e6)], tests)
    assert said.endswith("(1 more could not be tested).")
    (said,) = findings(best, [])
    assert said == "a, cell 0 classifies 90.0 (88.0-92.0) % of the images correctly at 1.000 M MACs per image."
    (said,) = findings([*best, *other], [])
    assert "the most of 2 models" in said


def test_models_on_different_data_are_not_compared():
    models = [entry("a", 0.9, 1e6), entry("b", 0.7, 1e6, data="mnist")]
    assert [text.split(":")[0] for text in findings(models, [])] == [f"On {each.data}" for each in models]


def test_the_headline_has_the_day_the_version_and_the_number_of_images():
    one = entry("a", 0.9, 1e6)
    day = one.result.run.started.date().isoformat()
    parts = list(headline([one]))
    assert parts[0] == f"measured {day}"
    assert parts[-1] == "100 images"


def test_too_few_images_are_said_to_tell_nothing():
    entries = [entry("a", 0.9, 2e6), entry("b", 0.8, 1e6)]
    pairs = [each.model_copy(update={"n": 10, "low": -0.3, "high": 0.2}) for each in paired(entries, "b")]
    (said,) = findings(entries, pairs)
    assert said.startswith("10 images cannot tell a and b apart (")
    assert "significant" not in said


def test_of_many_models_a_sentence_names_a_few():
    entries = [entry(name, 0.9 - 0.01 * place, 1e6) for place, name in enumerate("abcdefgh")]
    pairs = [each.model_copy(update={"n": 10, "low": -0.3, "high": 0.2, "p": 0.5}) for each in paired(entries, "bcdefgh")]
    (said,) = findings(entries, pairs)
    assert said.startswith("10 images cannot tell a, b, c and 5 others apart (")
