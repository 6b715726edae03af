"""Certified accuracy by randomised smoothing: a lower bound that no attack in L2 can go below, beside the upper bounds of attacks.

Cohen, Rosenfeld & Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019. The smoothed model predicts the class
that the model gives most often for x + N(0, sigma^2 I) (eq. 1). If the probability of that class is at least p_A > 1/2, no change of length
below R = sigma Phi^-1(p_A) in L2 changes the prediction (eq. 3 with p_B = 1 - p_A, as in section 3.2.2). CERTIFY (section 3.2.2): n0
samples choose the class, and n others bound its probability from below (Clopper and Pearson, at alpha). If the bound is not above 1/2, the
smoothed model abstains. So each certificate holds with a probability of at least 1 - alpha. The average certified radius (ACR) is that of
Zhai et al., "MACER", ICLR 2020: an image that is wrong or abstained on counts as 0.

Theorem 1 is about any deterministic or random function, so it holds for any number of glimpses, and for stochastic models: each sample has
its own noise of the model, too. Samples are not clipped to [0, 1], as in the paper: every model takes any number. What is certified is the
last step of the smoothed model, not the model itself.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import NormalDist
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from glimpsezoo.conditions.attacks.settings import Length, in_255ths
from glimpsezoo.conditions.corruptions.draws import normal
from glimpsezoo.core.inference import inference
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.policies import check_without_labels
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import batches
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.jobs import Job, identity_of
from glimpsezoo.evaluation.memory import Parts
from glimpsezoo.evaluation.plan import Planned, PlannedFinding
from glimpsezoo.hashing import module_hash
from glimpsezoo.measures.base import Asked, Bench, Catalogue, Done, Measure, Update
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Axis, Cell, Column, Entry, Figure, Layout, Line, Table, accuracy_point, percent_cell
from glimpsezoo.measures.statistics import Estimate, Rate, lower_bound, mean_share, proportion
from glimpsezoo.schema import Amount, Positive, Section, Share
from glimpsezoo.settings import Settings

ABSTAINS = -1
SMOOTHING = 0x5300  # fork of an image's noise
DRAWN = 100  # samples of one image that are drawn together
PART = 10  # images per stored piece of work


class SmoothingSettings(Settings):
    """`--set smoothing.KEY`."""

    sigma: Length = 0.25
    """Standard deviation of the noise, in pixel values in [0, 1]; `--measure smoothing:0.5` gives another."""
    images: int = Field(100, ge=1)
    """How many of the images for corruptions and attacks are certified, a stratified choice."""
    n0: int = Field(100, ge=1)
    """Samples per image that choose the class."""
    n: int = Field(1000, ge=1)
    """Samples per image that bound its probability; the paper has 100,000. They limit the radius: see `largest_radius`."""
    alpha: float = Field(0.001, gt=0, lt=0.5)
    """The probability with which a certificate may be wrong."""
    radii: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """L2 radii at which the certified accuracy is shown."""

    @property
    def largest_radius(self) -> float:
        """The radius of an image for which every sample has the chosen class."""
        return radius_of(self.n, self)

    @model_validator(mode="after")
    def _in_pixels(self) -> "SmoothingSettings":
        if self.sigma > 1:
            raise ValueError(f"expected sigma of at most 1, because values lie in [0, 1], got {self.sigma:g}{in_255ths(self.sigma)}")
        return self

    @model_validator(mode="after")
    def _enough_samples(self) -> "SmoothingSettings":
        least = math.floor(math.log(self.alpha) / math.log(0.5)) + 1
        if self.n < least:
            raise ValueError(f"expected n of at least {least} with alpha={self.alpha:g}, got {self.n}: fewer samples certify no image")
        return self


class Certificates(Section):
    """What smoothing says of some images, in their order: the stored piece of work."""

    group: tuple[int, ...]
    """The source image of each."""
    label: tuple[int, ...]
    """The true class."""
    prediction: tuple[int, ...]
    """The class of the smoothed model; -1 if it abstains."""
    radius: tuple[float, ...]
    """L2 radius within which the prediction is certified; 0 if it abstains."""
    plain: tuple[int, ...]
    """The class of the model itself, without noise."""


class CertifiedAt(Section):
    """Certified accuracy at one radius."""

    radius: Amount
    """In L2, on pixel values in [0, 1]."""
    top1: Rate
    """Share of images whose prediction is right, and certified within this radius."""


class Smoothed(Section):
    """Certified accuracy of the model smoothed by noise of one size. All of it is a lower bound with confidence 1 - alpha per image."""

    sigma: Amount
    """Standard deviation of the noise, in pixel values in [0, 1]; it is not clipped."""
    n0: Positive
    """Samples per image that chose the class."""
    n: Positive
    """Samples per image that bounded its probability."""
    alpha: Share
    """Each certificate is right with a probability of at least 1 - alpha."""
    images: Positive
    """Number of images."""
    largest_radius: Amount
    """The most that n samples can certify."""
    abstained: Rate
    """Share of images for which the smoothed model names no class."""
    certified: tuple[CertifiedAt, ...]
    """By radius. At radius 0: the accuracy of the smoothed model."""
    acr: Estimate
    """Average certified radius in L2, 0 for an image that is wrong or abstained on."""
    clean: Rate
    """Accuracy of the model itself on the same images, without noise."""


def radius_of(hits: int, settings: SmoothingSettings) -> float:
    """The radius that is certified if `hits` of n samples have the chosen class; 0 if none is."""
    share = lower_bound(hits, settings.n, settings.alpha)
    return settings.sigma * NormalDist().inv_cdf(share) if share > 0.5 else 0.0


def class_counts(
    model: GlimpseModel[Any], image: Float[Tensor, "1 C H W"], noise: Noise, samples: range, sigma: float, parts: Parts
) -> Int[Tensor, "classes"]:
    """How often the model predicts each class for the image with Gaussian noise. samples: numbers that tell the draws apart."""
    counts = torch.zeros(len(model.task.classes), dtype=torch.long)
    for start in range(samples.start, samples.stop, DRAWN):
        size = min(DRAWN, samples.stop - start)
        noisy = image + sigma * normal(noise, start, size, *image.shape[1:])[0]
        own = Noise(noise.keys.repeat(size)).fork(torch.arange(start, start + size, device=image.device))
        for found in parts.over(size, partial(_predicted, model, noisy, own)):
            counts += found.bincount(minlength=len(counts))
    return counts


def _predicted(model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], noise: Noise, part: slice) -> Int[Tensor, "b"]:
    rows = torch.arange(part.start, part.stop, device=images.device)
    return rollout(model, images[part], noise=noise.select(rows)).logits.argmax(1).cpu()


def certify(
    model: GlimpseModel[Any], image: Float[Tensor, "1 C H W"], noise: Noise, settings: SmoothingSettings, parts: Parts | None = None
) -> tuple[int, float]:
    """CERTIFY of the paper: the smoothed model's class and its radius, or `ABSTAINS` and 0. noise: of the image. parts: of the samples."""
    parts, end = parts or Parts.of("auto", model.task, image.device), settings.n0 + settings.n
    chosen = int(class_counts(model, image, noise, range(settings.n0), settings.sigma, parts).argmax())
    hits = int(class_counts(model, image, noise, range(settings.n0, end), settings.sigma, parts)[chosen])
    radius = radius_of(hits, settings)
    return (chosen, radius) if radius > 0 else (ABSTAINS, 0.0)


def smoothed(parts: Sequence[Certificates], settings: SmoothingSettings) -> Smoothed:
    """The record of all images, one or more."""
    group, label, prediction, radius, plain = (
        np.concatenate([getattr(part, name) for part in parts if part.label]) for name in Certificates.model_fields
    )
    right = prediction == label
    return Smoothed(
        **settings.model_dump(include={"sigma", "n0", "n", "alpha"}),
        images=len(label),
        largest_radius=settings.largest_radius,
        abstained=proportion(prediction == ABSTAINS, group),
        certified=tuple(CertifiedAt(radius=r, top1=proportion(right & (radius >= r), group)) for r in settings.radii),
        acr=mean_share(np.where(right, radius, 0.0), group),
        clean=proportion(plain == label, group),
    )


class SmoothingMeasure(Measure):
    """Every model, smoothed by noise of each sigma that was asked for."""

    record = tuple[Smoothed, ...]
    empty = ()
    config = SmoothingSettings

    wanted: tuple[SmoothingSettings, ...]
    """One per sigma."""

    @classmethod
    def takes(cls, name: str, text: str, catalogue: Catalogue) -> bool:
        return text.partition(":")[0] == name

    @classmethod
    def of(cls, asked: Asked) -> "SmoothingMeasure | None":
        """`smoothing`, or `smoothing:0.5` for another sigma, also several. Raises `GlimpseZooError`."""
        given = asked.sets.of(asked.name)
        found = cls(asked, SmoothingSettings.parse(given, owner=asked.name))
        wanted = []
        for text in asked.texts:
            _, *sigma = text.split(":")
            if len(sigma) > 1:
                raise GlimpseZooError(f"{asked.name} expects one sigma, got {text!r}: write {asked.name}:{sigma[0]}")
            wanted.append(SmoothingSettings.parse({**given, **dict(zip(("sigma",), sigma, strict=False))}, owner=asked.name))
        found.wanted = tuple(dict.fromkeys(wanted))
        return found if wanted else None

    @property
    def texts(self) -> list[str]:
        first, *others = self.wanted
        sigmas = f"{1 + len(others)} sigmas, " if others else ""
        return [f"{self.name} ({sigmas}at most {first.images} images)"]

    def plan(self, bench: Bench) -> Iterator[Planned]:
        for model in bench.models:
            check_without_labels(model, self.name)
        for index, model in enumerate(bench.models):
            for settings in self.wanted:
                data = limited(bench.few, settings.images)
                identity = identity_of(Job(model, bench.names[index], data), bench.seed)
                code = [module_hash(name) for name in (__name__, lower_bound.__module__)]
                used = [settings.model_dump(include={"sigma", "n0", "n", "alpha"}), code]
                for start in range(0, len(data), PART):
                    stop = min(start + PART, len(data))
                    yield PlannedFinding(
                        index=index,
                        key=(settings, start),
                        label=f"smoothing {settings.sigma:g}",
                        passes=1 + settings.n0 + settings.n,
                        images=stop - start,
                        identity={**identity, "smoothing": [*used, start, stop]},
                        kind=Certificates,
                        find=partial(_certificates, bench, model, data, (start, stop), settings),
                    )

    def section(self, bench: Bench, index: int, done: Done) -> tuple[Smoothed, ...]:
        mine, found = done.get(index, {}), []
        for settings in self.wanted:
            parts = [part for key, part in mine.items() if isinstance(key, tuple) and key[:1] == (settings,) and part is not None]
            if any(part.label for part in parts):
                found.append(smoothed(parts, settings))
            elif parts:  # or else all of them failed: the errors say why
                bench.note(index, f"{bench.names[index]}: nothing is certified, because no image for it can be read")
        return tuple(found)

    def lost(self, known: tuple[Smoothed, ...], update: Update) -> Iterator[str]:
        planned = {settings.sigma: settings for settings in self.wanted}
        for record in known:
            now = planned.get(record.sigma)
            if now is None or now.n < record.n or now.images < record.images:
                yield f"smoothing of sigma {record.sigma:g} ({record.n:,} samples of {record.images} images)"

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        """Beside other measures, the certified radius; everything is in a table of its own."""
        if layout != "board":
            return []
        return [Column(f"ACR, smoothing {sigma:g}", partial(_acr, sigma)) for sigma in _sigmas(results)]

    @classmethod
    def below(cls, results: Sequence[Result]) -> list[Table]:
        return _tables([(result.model.name, result) for result in results])

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        return ["### Certified", *_tables([(result.model.name, result)])] if result.smoothing else []

    @classmethod
    def tables(cls, entries: Sequence[Entry]) -> dict[str, list[Table]]:
        found = _tables([(entry.name, entry.result) for entry in entries])
        return {"Certified": found} if found else {}

    @classmethod
    def figures(cls, entries: Sequence[Entry]) -> Iterator[Figure]:
        for sigma in _sigmas([entry.result for entry in entries]):
            lines = []
            for k, entry in enumerate(entries):
                for record in entry.result.smoothing:
                    if record.sigma == sigma:
                        points = [accuracy_point(at.radius, at.top1, f"{entry.name}, R {at.radius:g}") for at in record.certified]
                        lines.append(Line(f"{entry.name}, {entry.data}", k, tuple(points)))
            note = "Lower bounds on the accuracy of the smoothed model under any change of this length in L2."
            yield Figure(
                "Certified", f"Certified accuracy, sigma {sigma:g}", tuple(lines), Axis("L2 radius", low=0), Axis("top-1 %", low=0), note
            )


def _certificates(
    bench: Bench, model: GlimpseModel[Any], data: ImageData, span: tuple[int, int], settings: SmoothingSettings
) -> Certificates:
    """Certify images start..stop-1; those that cannot be read are left out or raised, as everywhere in the run."""
    rows: list[tuple[int, ...]] = []
    radii, parts = [], bench.parts(model)
    model.to(bench.device)
    with inference(model):
        for batch in batches(data, *span, PART, 0, on_bad_image=bench.on_bad_image):
            for image, label, key, group in zip(batch.images.to(bench.device).split(1), batch.labels, batch.ids, batch.groups, strict=True):
                noise = Noise.of(bench.seed, key[None].to(bench.device))
                prediction, radius = certify(model, image, noise.fork(SMOOTHING), settings, parts)
                rows.append((int(group), int(label), prediction, int(rollout(model, image, noise=noise).logits.argmax())))
                radii.append(radius)
    group, label, prediction, plain = zip(*rows, strict=True) if rows else ((),) * 4
    return Certificates(group=group, label=label, prediction=prediction, radius=tuple(radii), plain=plain)


def _sigmas(results: Sequence[Result]) -> list[float]:
    return sorted({record.sigma for result in results for record in result.smoothing})


def _acr(sigma: float, result: Result, step: int) -> Cell:
    found = next((record.acr for record in result.smoothing if record.sigma == sigma), None)
    return Cell("") if found is None else Cell(_radius_text(found), found.value, found.low, found.high)


def _radius_text(acr: Estimate) -> str:
    return f"{acr.value:.3f} ({acr.low:.3f}-{acr.high:.3f})"


def _tables(found: Sequence[tuple[str, Result]]) -> list[Table]:
    """A table per sigma and number of samples, with a column per model. Radii that n samples cannot certify are left out."""
    records = [(name, record) for name, result in found for record in result.smoothing]
    return [_table([each for each in records if _kind(each[1]) == kind]) for kind in dict.fromkeys(_kind(record) for _, record in records)]


def _kind(record: Smoothed) -> tuple[float, ...]:
    """What records of one table share."""
    return record.sigma, record.n0, record.n, record.alpha, record.images


def _table(found: Sequence[tuple[str, Smoothed]]) -> Table:
    first = found[0][1]
    rows = [
        (Cell("without noise, top-1 %"), *(percent_cell(record.clean) for _, record in found)),
        (Cell("smoothed: abstains %"), *(percent_cell(record.abstained) for _, record in found)),
    ]
    for radius in sorted({at.radius for _, record in found for at in record.certified if at.radius <= record.largest_radius}):
        at = [next((at.top1 for at in record.certified if at.radius == radius), None) for _, record in found]
        rows.append((Cell(f"certified at R = {radius:g}, top-1 %"), *map(percent_cell, at)))
    acr = [Cell(_radius_text(record.acr), record.acr.value, record.acr.low, record.acr.high) for _, record in found]
    rows.append((Cell("average certified R"), *acr))
    caption = (
        f"Smoothed by noise of sigma {first.sigma:g}: certified top-1 is a lower bound under any change up to R in L2. Each of "
        f"{first.images} images has {first.n:,} samples, which certify R = {first.largest_radius:.3f} at most; its certificate holds with "
        f"a probability of {100 * (1 - first.alpha):g} %."
    )
    return Table(caption, ("smoothing", *(name for name, _ in found)), tuple(rows), frozenset({"smoothing"}))
