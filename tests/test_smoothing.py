"""Randomised smoothing: its bound and radius against scipy, its certificates on models whose true radius is known, and the measure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ask
from scipy.stats import beta, norm
from torch import Tensor
from toy_models import TASK

from glimpsezoo import FeedForward, GlimpseZooError, Noise
from glimpsezoo.core.inference import inference
from glimpsezoo.evaluation.memory import Parts
from glimpsezoo.measures import smoothing
from glimpsezoo.measures.base import Asked, Update
from glimpsezoo.measures.smoothing import ABSTAINS, Certificates, SmoothingMeasure, SmoothingSettings, certify, radius_of, smoothed
from glimpsezoo.measures.statistics import lower_bound, proportion
from glimpsezoo.zoo.names import Assignments
from glimpsezoo.zoo.plugins import registry

SIZE = 16 * 16
NOISE = Noise.of(3, torch.tensor([7]))


class HalfSpace(FeedForward):
    """Class 1 if the sum of the pixels is above a bound, else class 0. A share of its runs, drawn from its noise, says class 2."""

    def __init__(self, bound: float, random: float = 0.0) -> None:
        super().__init__(None, TASK)
        self.bound, self.random, self.stochastic, self.seen = bound, random, random > 0, (0.0, 0.0)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def start(self, images: Tensor, noise: Noise) -> Any:
        self.guess = noise.uniform(0, 1)[:, 0] < self.random
        return super().start(images, noise)

    def features(self, images: Tensor) -> Tensor:
        self.seen = (float(images.min()), float(images.max()))
        return images.flatten(1).sum(1)

    def head(self, total: Tensor) -> Tensor:
        above = (total > self.bound).float()
        return torch.stack([1 - above, above, 3.0 * self.guess], 1)


def grey(level: float) -> Tensor:
    return torch.full((1, 1, 16, 16), level)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("n", [10, 1000, 100_000])
def test_the_lower_bound_is_scipys(n: int, alpha: float) -> None:
    for hits in {0, 1, n // 2, n * 9 // 10, n - 1, n}:
        expected = beta.ppf(alpha, hits, n - hits + 1) if hits else 0.0
        assert lower_bound(hits, n, alpha) == pytest.approx(expected, rel=1e-9)


def test_the_bound_covers_the_true_share_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).binomial(200, 0.8, size=4000)
    assert np.mean([lower_bound(int(k), 200, 0.05) <= 0.8 for k in draws]) >= 0.95 - 0.01


def test_the_radius_is_the_papers() -> None:
    """Of 100,000 samples without a miss at alpha .001, the paper's figures end at 3.8 sigma; here by scipy's quantiles."""
    settings = SmoothingSettings(sigma=0.5, n=100_000)
    assert settings.largest_radius == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 100_000)), rel=1e-9)
    assert settings.largest_radius == pytest.approx(3.8 * 0.5, abs=0.02)
    share = beta.ppf(0.001, 99_000, 1001)
    assert radius_of(99_000, settings) == pytest.approx(0.5 * norm.ppf(share), rel=1e-9)
    assert radius_of(50_000, settings) == 0.0


@pytest.mark.parametrize("distance", [0.1, 0.3, -0.2])
def test_the_radius_of_a_half_space_is_its_distance(distance: float) -> None:
    """Of a linear model, the smoothed model is the model, and the certified radius is the distance to its boundary (proposition 1)."""
    model = HalfSpace(bound=SIZE * 0.5 - 16 * distance)  # the normal has length 16
    settings = SmoothingSettings(sigma=0.2, n=20_000)
    with inference(model):
        found, radius = certify(model, grey(0.5), NOISE, settings)
    assert found == (1 if distance > 0 else 0)
    assert abs(distance) - 0.02 < radius < abs(distance)


def test_samples_are_not_clipped_and_each_has_its_own_noise() -> None:
    model = HalfSpace(bound=0.0)
    with inference(model):
        certify(model, grey(0.0), NOISE, SmoothingSettings(sigma=0.5))
    assert model.seen[0] < -1
    assert model.seen[1] > 1


def test_a_stochastic_model_is_smoothed_over_its_own_noise_too() -> None:
    """A model that errs in one run of five, far from the boundary: the bound is that of four fifths."""
    settings = SmoothingSettings(sigma=0.25, n=4000)
    with inference(model := HalfSpace(bound=-100.0, random=0.2)):
        found, radius = certify(model, grey(0.5), NOISE, settings)
    assert found == 1
    assert radius == pytest.approx(0.25 * norm.ppf(0.8), abs=0.02)
    with inference(coin := HalfSpace(bound=-100.0, random=0.5)):
        assert certify(coin, grey(0.5), NOISE, settings) == (ABSTAINS, 0.0)


def test_an_image_has_the_same_certificate_with_any_batch_size() -> None:
    settings, model = SmoothingSettings(sigma=0.3, n=250, n0=30), HalfSpace(bound=SIZE * 0.49)
    with inference(model):
        whole = certify(model, grey(0.5), NOISE, settings)
        assert certify(model, grey(0.5), NOISE, settings, Parts(7)) == whole
        assert certify(model, grey(0.5), Noise.of(4, torch.tensor([7])), settings) != whole


def test_the_record_counts_only_what_is_right_and_certified() -> None:
    part = Certificates(
        group=(0, 1, 2, 3), label=(0, 1, 2, 0), prediction=(0, 1, ABSTAINS, 1), radius=(0.6, 0.2, 0.0, 0.9), plain=(0, 1, 2, 1)
    )
    other = Certificates(group=(4,), label=(1,), prediction=(1,), radius=(0.4,), plain=(1,))
    empty = Certificates(group=(), label=(), prediction=(), radius=(), plain=())
    record = smoothed([part, empty, other], SmoothingSettings(radii=(0.0, 0.3, 0.5)))
    assert [(at.radius, at.top1.value) for at in record.certified] == [(0.0, 3 / 5), (0.3, 2 / 5), (0.5, 1 / 5)]
    assert record.abstained.value == 1 / 5
    assert record.acr.value == pytest.approx((0.6 + 0.2 + 0.4) / 5)
    assert record.acr.low < record.acr.value < record.acr.high
    assert record.clean == proportion(np.array([True] * 3 + [False, True]), np.arange(5))


def asked(*texts: str, sets: tuple[str, ...] = ()) -> SmoothingMeasure | None:
    known = Assignments.parse(sets, [], scopes=("smoothing",))
    return SmoothingMeasure.of(Asked("smoothing", texts, True, known, registry()))


def test_sigma_stands_in_the_name() -> None:
    found = asked("smoothing", "smoothing:0.5", "smoothing:0.25", sets=("smoothing.n=500",))
    assert found is not None
    assert [(each.sigma, each.n) for each in found.wanted] == [(0.25, 500), (0.5, 500)]
    assert asked() is None


@pytest.mark.parametrize(
    ("text", "sets", "message"),
    [
        ("smoothing:loud", (), "--set sigma=loud for smoothing"),
        ("smoothing:-1", (), "--set sigma=-1 for smoothing"),
        ("smoothing:25", (), r"at most 1, because values lie in \[0, 1\], got 25: did you mean 25/255\?"),
        ("smoothing:0.5:100", (), "one sigma, got 'smoothing:0.5:100': write smoothing:0.5"),
        ("smoothing", ("smoothing.n=9",), "n of at least 10 with alpha=0.001, got 9"),
        ("smoothing", ("smoothing.samples=9",), "smoothing has no setting 'samples'"),
    ],
)
def test_what_cannot_be_is_one_line(text: str, sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(GlimpseZooError, match=message) as caught:
        asked(text, sets=sets)
    assert "\n" not in str(caught.value)


def test_a_card_does_not_lose_what_it_knows() -> None:
    part = Certificates(group=(0,), label=(0,), prediction=(0,), radius=(0.5,), plain=(0,))
    known = smoothed([part], SmoothingSettings(sigma=0.5, n=1000))
    update: Any = Update(HalfSpace(0.0), baseline=True, published=False)

    def lost(*words: str) -> list[str]:
        found = asked(*words[:1], sets=words[1:])
        assert found is not None
        return list(found.lost((known,), update))

    assert lost("smoothing:0.5") == []
    assert len(lost("smoothing:0.25")) == len(lost("smoothing:0.5", "smoothing.n=500")) == 1


def test_a_run_shows_stores_and_reuses_it(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ("--set", "smoothing.n=20", "--set", "smoothing.n0=5")
    words = (
        "run",
        "mgnet",
        "--checkpoint",
        "none",
        "-o",
        "out",
        "--limit",
        "12",
        "--measure",
        "accuracy,smoothing:0.25,smoothing:0.1",
        *few,
    )
    answer = ask(capsys, *words)
    assert answer.status == 0, answer.err
    for fact in ("sigma 0.25", "sigma 0.1", "certified at R = 0", "abstains", "99.9 %", "12 images"):
        assert fact in " ".join(answer.out.split()), fact
    found = json.loads(Path("out/mgnet/result.json").read_text())["smoothing"]
    assert [(each["sigma"], each["n"], each["images"]) for each in found] == [(0.25, 20, 12), (0.1, 20, 12)]
    monkeypatch.setattr(smoothing, "certify", lambda *_: pytest.fail("what is stored is certified again"))
    again = ask(capsys, *words)
    assert again.status == 0, again.err
    assert json.loads(Path("out/mgnet/result.json").read_text())["smoothing"] == found
    assert "ACR" in ask(capsys, "compare", "out", "--format", "csv").out
    page = ask(capsys, "report", "out", "-o", "page.html", "--traces", "0")
    assert page.status == 0, page.err
    assert "Certified accuracy, sigma 0.25" in Path("page.html").read_text()
