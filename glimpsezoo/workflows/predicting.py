"""Predictions of a trained model for images of any kind: what it says, where it looked, when it stopped, and what that cost."""

import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.inference import inference
from glimpsezoo.core.macs import meter_of
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import Look, Record, Trace, rollout
from glimpsezoo.data.config import AugmentedSettings, OpenSettings
from glimpsezoo.data.preprocessing import UPRIGHT_OVER_BLACK, AnyImage, FittedImage, Preprocessing, Window, decoding_of, each_of
from glimpsezoo.data.wordnet import english
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import DatasetSpec, Task, load_string
from glimpsezoo.zoo.card_config import UNKNOWN, CardConfig
from glimpsezoo.zoo.names import data_spec
from glimpsezoo.zoo.own_data import own_settings


class Guess(NamedTuple):
    """One class."""

    label: str
    """As the data and the card have it: a WordNet id for ImageNet."""
    name: str
    """For people: English for a WordNet id, otherwise the label."""
    index: int
    """Of the class in `model.task.classes`."""
    probability: float
    """The softmax of its logit."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    top: tuple[Guess, ...]
    """The most probable classes, the first one being the prediction."""
    exit_step: int
    """The last step that the image took, from 1."""
    steps: int
    """The most steps that it might have taken."""
    looks: tuple[tuple[Window, ...], ...]
    """Per step taken, the regions that the model looked at, in pixels of the image as it was given, but upright."""
    macs: int
    """MACs that ran."""
    macs_at_least: bool
    """Whether `macs` is a lower bound, because an operation ran whose cost is not known."""
    conversions: tuple[str, ...]
    """What was done to the image beyond resizing and cropping, in words, such as 'colours to grey'."""
    logits: Float[Tensor, "classes"] = field(repr=False)

    @property
    def label(self) -> str:
        """The most probable class, as the data and the card have it."""
        return self.top[0].label

    @property
    def name(self) -> str:
        """Its name for people."""
        return self.top[0].name

    @property
    def index(self) -> int:
        """Its number."""
        return self.top[0].index

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.top[0].probability

    def to_json(self) -> dict[str, Any]:
        """As plain values, for `json.dumps`."""
        return {
            "label": self.label,
            "name": self.name,
            "probability": self.probability,
            "top": [guess._asdict() for guess in self.top],
            "exit_step": self.exit_step,
            "steps": self.steps,
            "looks": [[window._asdict() for window in look] for look in self.looks],
            "macs": self.macs,
            "macs_at_least": self.macs_at_least,
            "conversions": list(self.conversions),
        }


def preprocessing_like(spec: DatasetSpec, settings: Mapping[str, Any], task: Task) -> Preprocessing:
    """What brings any image to a task as the images of a data set with these settings come to it.

    If the data set does not say how images are decoded, they are turned upright, and transparency is laid over black.
    """
    config = load_string(spec.config).parse(settings, owner="data")
    crop = config.crop if isinstance(config, AugmentedSettings) else None
    decoding = decoding_of(config) if isinstance(config, OpenSettings) else UPRIGHT_OVER_BLACK
    return Preprocessing(task.image_size, task.channels, spec.crop if crop is None else crop, decoding)


def transform_of(model: GlimpseModel[Any]) -> Preprocessing:
    """What brings any image to a model as the data of its card come to it: a transform as torchvision has them.

    For a model without a card, and for data that are not known on this machine, nothing is cropped from the shorter side of an image.

    >>> import glimpsezoo as gz
    >>> from PIL import Image
    >>> gz.transform_of(gz.load("cnn4.digits"))(Image.new("L", (640, 480))).shape
    torch.Size([1, 64, 64])
    """
    card: CardConfig | None = model.card
    if card is not None and card.data.name != UNKNOWN:
        with suppress(GlimpseZooError):  # the plugin of the data is not installed
            return preprocessing_like(data_spec(card.data.name), own_settings(card, card.data.name), model.task)
    return Preprocessing(model.task.image_size, model.task.channels)


def predict(
    model: GlimpseModel[Any],
    images: AnyImage | Iterable[AnyImage],
    *,
    top: int = 5,
    exit_rule: ExitRule | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> list[Prediction]:
    """What a model says of one image or of several: one prediction per image, also for a single one.

    images: a file, the content of a file (bytes), an image of Pillow's, an array [H, W, C] or [H, W], a tensor [C, H, W] or [H, W], of
    8 bits or of floats in [0, 1]; or any iterable of these, an array [N, H, W, C], or a tensor [N, C, H, W]. `transform_of(model)` makes
    them fit; an array or tensor of the model's size is taken as it is.
    top: how many classes to name. exit_rule: lets an image stop early; by default it takes all steps. seed: of the noise of models that
    draw; the noise of an image depends on its pixels, so the answer is the same alone and in any batch.

    Raises `GlimpseZooError` for what is not an image that fits, with its number if there are several, and for logits that are not finite.

    >>> import glimpsezoo as gz
    >>> model = gz.load("mgnet.digits")
    >>> digits = gz.open_data("digits")
    >>> (found,) = model.predict(digits[0].image, exit_rule=gz.Confidence(0.9))
    >>> found.label, found.exit_step, len(found.looks), len(found.top)
    ('0', 1, 1, 5)
    """
    if top < 1 or batch_size < 1:
        raise GlimpseZooError(f"expected a top and a batch_size of 1 or more, got {top} and {batch_size}: leave them out for 5 and 32")
    predictor = Predictor(model, transform_of(model), top=top, exit_rule=exit_rule, seed=seed)
    fitted, found = _numbered(predictor.transform, each_of(images)), list[Prediction]()
    while batch := list(itertools.islice(fitted, batch_size)):
        found += predictor.answer(batch)
    return found


def _numbered(transform: Preprocessing, images: Iterable[AnyImage]) -> Iterator[FittedImage]:
    """Images as the model takes them. An error says which one it is, unless there is only one."""
    coming = iter(images)
    first = list(itertools.islice(coming, 2))
    for number, image in enumerate(itertools.chain(first, coming)):
        try:
            yield transform.fit(image)
        except GlimpseZooError as error:
            raise GlimpseZooError(f"image {number}: {error}" if len(first) > 1 else str(error)) from None


def noise_id(pixels: Float[Tensor, "C H W"]) -> int:
    """The key of an image's noise, from its pixels alone, for an image that is not one of a data set."""
    return zlib.crc32(pixels.numpy().tobytes())


@dataclass(frozen=True)
class Predictor:
    """A model, and how it is asked."""

    model: GlimpseModel[Any]
    transform: Preprocessing
    """What brings images to it."""
    top: int = 5
    """How many classes to name; fewer if the model has fewer."""
    exit_rule: ExitRule | None = None
    seed: int = 0
    """Of the noise of models that draw."""

    def answer(self, batch: Sequence[FittedImage]) -> Iterator[Prediction]:
        """The predictions for a batch of images, or for none. Raises `GlimpseZooError` for logits that are not finite."""
        if not batch:
            return
        images = torch.stack([image.pixels for image in batch]).to(self.model.device)
        noise = Noise.of(self.seed, torch.tensor([noise_id(image.pixels) for image in batch], device=self.model.device))
        meter = meter_of(self.model)
        with inference(self.model):
            trace = rollout(self.model, images, exit_rule=self.exit_rule, noise=noise, record=Record(meter=meter))
        bad = int((~trace.logits.isfinite()).any(1).sum())
        if bad:
            raise GlimpseZooError(f"expected finite logits, got NaN or infinity for {bad} of {len(batch)} images: check the weights")
        classes = self.model.task.classes
        logits = trace.logits.float().cpu()  # [B, classes]
        probable, chosen = (found.tolist() for found in logits.softmax(1).topk(min(self.top, len(classes))))  # [B, top]
        macs = trace.total_macs().tolist()
        for row, image in enumerate(batch):
            yield Prediction(
                top=tuple(_guess(classes, *found) for found in zip(chosen[row], probable[row], strict=True)),
                exit_step=int(trace.last_step[row]),
                steps=trace.steps,
                looks=_looks(trace, row, image.window),
                macs=macs[row],
                macs_at_least=bool(meter.missing),
                conversions=image.conversions,
                logits=logits[row],
            )


def _guess(classes: Sequence[str], index: int, probability: float) -> Guess:
    return Guess(classes[index], english(classes[index]), index, probability)


def _looks(trace: Trace, row: int, window: Window) -> tuple[tuple[Window, ...], ...]:
    """The regions of one image of the batch, step by step."""
    return tuple(_regions(look, row, window) for look in trace.looks if bool((look.rows == row).any()))


def _regions(look: Look, row: int, window: Window) -> tuple[Window, ...]:
    place = int((look.rows == row).nonzero())
    of_image = look.decision.regions.image == place  # [N]
    centres, halves = look.decision.regions.centre[of_image].tolist(), look.decision.regions.half[of_image].tolist()
    return tuple(window.part((x + 1 - w) / 2, (y + 1 - h) / 2, w, h) for (x, y), (w, h) in zip(centres, halves, strict=True))
