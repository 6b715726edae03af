"""Gradient masking: whether a model hides its gradient from attacks. It is a verdict on the model, not on the strength of an attack.

Each check of `masking_checks` says which images show a sign of masking. The check has found masking if the share of these images is above
its limit, and masking is found if any check has found it. If the 95 % interval of a share that decides contains its limit, another draw of
images might turn the verdict, and it says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from glimpsezoo.conditions.attacks.base import Attack, attacker_noise, weights_fixed
from glimpsezoo.conditions.attacks.victim import Victim
from glimpsezoo.conditions.attacks.worst_case import wrong_in
from glimpsezoo.core.inference import evaluating
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import batches
from glimpsezoo.escaping import code, markdown
from glimpsezoo.evaluation.jobs import Job, identity_of
from glimpsezoo.evaluation.memory import Parts
from glimpsezoo.evaluation.plan import Planned, PlannedFinding
from glimpsezoo.hashing import module_hash
from glimpsezoo.measures import derivatives, masking_checks
from glimpsezoo.measures.attacked import AttackedMeasure
from glimpsezoo.measures.base import Bench, Done, Measure, sections_of
from glimpsezoo.measures.masking_checks import Sign, Victims, signs
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Cell, Column, Layout, Table
from glimpsezoo.measures.statistics import proportion
from glimpsezoo.measures.text import short
from glimpsezoo.measures.threats import Convergence, heading, is_converged, judged, judged_names, masking_text, record_named
from glimpsezoo.schema import Section
from glimpsezoo.settings import Settings

PASSES = 250.0  # cost of all checks per image, in forward passes, for a model of which half of the images survive


class Masking(Section):
    """Whether the model hides its gradient from attacks."""

    found: bool
    """Whether any check found a sign of it on too many images."""
    sure: bool
    """Whether `found` is unlikely to change with other images: no deciding check has its limit within its interval."""
    checks: dict[str, dict[str, Any]]
    """By name: the `share` of `n` images that show the sign, its 95 % interval (`low`, `high`), the `limit` above which masking is `found`.
    Checks of older versions have other numbers."""
    reported: Convergence | None = None
    """Only in results of older versions: whether a longer attack took more than the reported one."""

    @model_validator(mode="before")
    @classmethod
    def _older(cls, values: Any) -> Any:
        """Older versions had one verdict (ok, suspect, unreliable), in which the strength of the attack was a check like the others."""
        if not isinstance(values, dict) or "verdict" not in values:
            return values
        checks = {name: {**check, "found": check.get("verdict") == "unreliable"} for name, check in values["checks"].items()}
        weak = checks.pop("reported", None)
        verdicts = {check.get("verdict") for check in checks.values()} if checks else {values["verdict"]}
        found = "unreliable" in verdicts
        sure = found or "suspect" not in verdicts
        return {"found": found, "sure": sure, "checks": checks, "reported": _reported(weak, checks)}

    @property
    def by(self) -> list[str]:
        """The checks that found it."""
        return [name for name, check in self.checks.items() if check["found"]]


def _reported(weak: Mapping[str, Any] | None, checks: Mapping[str, Any]) -> dict[str, Any] | None:
    """The check of older versions that compared the reported attack with a longer one, as it would be told now."""
    if weak is None or not {"gain", "low", "high"} <= set(weak):
        return None
    n = checks.get("images", {}).get("right", 0)
    gain = {**{key: weak[key] for key in ("low", "high")}, "value": weak["gain"], "n": n, "groups": n}
    return {"converged": is_converged(weak["gain"], weak["high"]), "gain": gain}


class MaskingSettings(Settings):
    """`--set masking.KEY`: settings of the gradient-masking checks."""

    images: int = Field(64, ge=1)
    """How many of the run's images for attacks are used."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of all randomness."""


class GradientMaskingMeasure(Measure):
    """The verdict on each model. It is measured whenever an attack is that it can be about."""

    record = Masking
    config = MaskingSettings
    few = True

    settings: MaskingSettings
    """Settings of `--set masking.KEY`."""

    @property
    def texts(self) -> list[str]:
        return []

    def plan(self, bench: Bench) -> Iterator[Planned]:
        attacked, data = bench.measure(AttackedMeasure), limited(bench.few, self.settings.images)
        for index, attacks in (attacked.attacks if attacked else {}).items():
            if not any(map(_comparable, attacks)):
                continue
            model = bench.models[index]
            yield PlannedFinding(
                index=index,
                key="verdict",
                label="does it hide its gradient?",
                passes=PASSES * (3 if model.stochastic else 1),
                images=len(data),
                identity={
                    **identity_of(Job(model, bench.names[index], data), bench.seed),
                    "masking": [self.settings.model_dump(mode="json"), _code()],
                },
                kind=Masking,
                find=partial(self._found, bench, index, data),
            )

    def _found(self, bench: Bench, index: int, data: ImageData) -> Masking | None:
        """The verdict. If no image can be read: None, and a note."""
        batch = next(iter(batches(data, 0, len(data), len(data), 0, on_bad_image=bench.on_bad_image)))
        if not len(batch.ids):
            bench.note(index, f"{bench.names[index]}: no verdict on its gradient, because none of {len(data)} images for it can be read")
            return None
        model = bench.models[index]
        with evaluating(model):
            images, labels, ids = (tensor.to(bench.device) for tensor in (batch.images, batch.labels, batch.ids))
            return masking(model, images, labels, ids, self.settings, batch.groups.numpy(), bench.parts(model))

    def section(self, bench: Bench, index: int, done: Done) -> Masking | None:
        return next(iter(sections_of(done, index, Masking)), None)

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        """One column for each attack that at least one verdict is about, placed after the attack."""
        names = judged_names(results) if layout == "board" else judged_names(results)[:1]
        return [
            Column(
                "masking" if len(names) == 1 else f"masking of {name}",
                _cell_of(name),
                words=True,
                verdict=True,
                after=heading(name, results, layout),
            )
            for name in names
        ]

    @classmethod
    def footnotes(cls, results: Sequence[Result], layout: Layout) -> list[str]:
        known = [(result.model.name, result.masking) for result in results if result.masking and result.attacks]
        lines = [f"masking: {name} hides its gradient ({', '.join(found.by)})." for name, found in known if found.found]
        unsure = [name for name, found in known if not found.sure]
        unchecked = [result.model.name for result in results if result.attacks and judged(result) is None]
        lines += [f"masking: other images might turn the verdict on {', '.join(unsure)} (?); result.json says why."] if unsure else []
        return [*lines, *([f"masking: not checked for {', '.join(unchecked)}."] if unchecked else [])]

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        if not result.attacks:
            return []
        told = [
            f"{code(name)} found it: "
            + ", ".join(
                markdown(f"{key.replace('_', ' ')} {short(value)}") for key, value in check.items() if key not in ("found", "verdict")
            )
            + "."
            for name, check in result.masking.checks.items()
            if check["found"]
        ]
        turn = "" if result.masking.sure else " Another draw of images might turn this verdict."
        return [f"Gradient masking: {'found' if result.masking.found else 'not found'}.{turn}", *told]


def _cell_of(name: str) -> Callable[[Result, int], Cell]:
    """The verdict, beside an attack that it is about. It stands in the first step's row, or in the last one if only that is shown."""

    def cell(result: Result, step: int) -> Cell:
        record = record_named(result, name)
        return Cell(masking_text(result, record) if record and step <= 0 else "")

    return cell


def _comparable(attack: Attack) -> bool:
    """Whether the verdict is about attacks like this: on the label at the last step, in Linf on pixels, with the model's own glimpses."""
    settings = attack.settings
    return (settings.norm, settings.space, settings.target) == ("Linf", "pixels", "final") and settings.path != "frozen"


def _code() -> list[str | None]:
    """Hashes of the code that determines the verdict."""
    return [module_hash(name) for name in (__name__, derivatives.__name__, masking_checks.__name__, proportion.__module__)]


def masking(
    model: GlimpseModel[Any],
    images: Float[Tensor, "B C H W"],
    labels: Int[Tensor, "B"],
    ids: Int[Tensor, "B"],
    settings: MaskingSettings | None = None,
    groups: Int[np.ndarray, "B"] | None = None,
    parts: Parts | None = None,
) -> Masking:
    """The verdict on `model`, which must be in eval mode.

    images: in [0, 1]; those that are classified correctly are used. groups: their source images; None if each is its own.
    parts: how many images are worked on at a time.
    """
    settings = settings or MaskingSettings.parse({}, owner="masking")
    groups = np.arange(len(images)) if groups is None else groups
    start, run = attacker_noise(settings.seed, ids)
    victims = Victims(Victim(model, images.detach(), labels, run), start, parts or Parts.of("auto", model.task, images.device))
    with torch.no_grad(), weights_fixed(model):
        wrong = torch.cat(victims.each(lambda victim, _: wrong_in(victim, victim.images)))
        right = (wrong < 0.5).nonzero().squeeze(1)
        checks: dict[str, dict[str, Any]] = {"images": {"n": len(images), "right": len(right), "found": False}}
        if not len(right):
            return Masking(found=False, sure=False, checks=checks)
        found = signs(victims.select(right))
    of = groups[right.cpu().numpy()]
    checks |= {name: _judged(sign, of) for name, sign in found.items()}
    return Masking(found=any(check["found"] for check in checks.values()), sure=_sure(checks), checks=checks)


def _judged(sign: Sign, groups: Int[np.ndarray, "n"]) -> dict[str, Any]:
    """A check as the result has it."""
    of = groups if sign.of is None else groups[sign.of.cpu().numpy()]
    share = proportion(sign.shown.cpu().numpy(), of)
    numbers = {"share": share.value, "low": share.low, "high": share.high, "n": share.n, "limit": sign.limit}
    return {**numbers, "found": share.value > sign.limit}


def _sure(checks: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether another draw of images would hardly change whether any check finds masking."""
    told = [check for check in checks.values() if "limit" in check]
    if any(check["found"] for check in told):
        return any(check["low"] > check["limit"] for check in told)
    return all(check["high"] <= check["limit"] for check in told)
