"""MNIST, and the sets that the papers make from it by placing its digits on a canvas."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from glimpsezoo.data import hub
from glimpsezoo.data.base import BadImageError, DataInfo, ImageData
from glimpsezoo.data.columns import class_names, find_columns
from glimpsezoo.data.config import (
    CanvasMnistSettings,
    CentredMnistSettings,
    MnistSettings,
    NoisyMnistSettings,
    PlacedMnistSettings,
    SizedSettings,
)
from glimpsezoo.data.encoded import EncodedImages
from glimpsezoo.data.fingerprint import fingerprint
from glimpsezoo.data.images import decode
from glimpsezoo.data.labels import Labels, content_of, labels_by
from glimpsezoo.data.placed import Distortion, Glyphs, PlacedDigits, Placing, Treatment
from glimpsezoo.specs import DatasetSpec

SOURCE = hub.HubSource("ylecun/mnist", folders=("mnist",))
SIDE = 28  # px of a digit
VALIDATION = 5000  # the first digits of the train split


@dataclass(frozen=True, kw_only=True)
class MnistSet:
    """A set made from MNIST. The fields are those of `Placing`."""

    canvas: int
    treatment: Treatment = "none"
    places: Mapping[str, int]
    """By split."""
    fixed: bool = False


_PLACING = {"streaming", "places", "shift", "size"}  # settings that change no image, or that `Placing` has
_ONE = {"train": 1, "calibration": 1, "test": 1}
MNIST_SETS: Mapping[str, MnistSet] = {
    "mnist": MnistSet(canvas=28, places=_ONE, fixed=True),
    "tmnist": MnistSet(canvas=112, places=_ONE),
    "gtmnist": MnistSet(canvas=112, places=_ONE, treatment="gaussian"),
    "jittered-mnist": MnistSet(canvas=48, places={"train": 10, "calibration": 3, "test": 3}, fixed=True),
    "plain-mnist": MnistSet(canvas=56, places=_ONE),
    "textured-mnist": MnistSet(canvas=56, places=_ONE, treatment="texture"),
    "noisy-mnist": MnistSet(canvas=56, places=_ONE, treatment="salt-and-pepper"),
    "translated-mnist": MnistSet(canvas=60, places=_ONE),
    "cluttered-mnist": MnistSet(canvas=60, places=_ONE, treatment="clutter"),
}


def open_mnist(spec: DatasetSpec, name: str, split: str, config: MnistSettings, data_dir: Path | None) -> ImageData:
    """Open a split of a set in `MNIST_SETS`, from `ylecun/mnist` or from a copy of its Parquet files at or below `data_dir`."""
    assert spec.task is not None
    files = hub.find(SOURCE, data_dir)
    source = hub.source_split(files, "test" if split == "test" else "train")
    features = files.features(source)
    columns = find_columns(features, "image", "label")
    labels = labels_by(class_names(features["label"]), spec.task.classes, name)
    images = hub.open_images(files, source, columns, streaming=config.streaming, shuffled=False)
    part = {"test": range(len(images)), "calibration": range(VALIDATION), "train": range(VALIDATION, len(images))}[split]
    known, task = MNIST_SETS[spec.name], spec.task
    placing = Placing(canvas=known.canvas, places=known.places[split], fixed=known.fixed, treatment=known.treatment)
    if isinstance(config, CentredMnistSettings) and split == "train":
        placing = replace(placing, shift=config.shift, fixed=not config.shift)
    if isinstance(config, PlacedMnistSettings):
        measured = config.places if config.places and split != "train" else placing.places
        placing = replace(placing, seed=config.seed, places=measured)
    if isinstance(config, SizedSettings) and config.size is not None:
        side = "canvas" if isinstance(config, CanvasMnistSettings) else "size"
        placing, task = replace(placing, **{side: config.size}), replace(task, image_size=(config.size, config.size))
    distortion = Distortion(rotation=config.rotation, zoom=config.zoom)
    if isinstance(config, NoisyMnistSettings):
        distortion = replace(distortion, noise_epochs=config.noise_epochs)
    distorted = split == "train" and distortion != Distortion()
    info = DataInfo(
        name=name,
        source=f"hf:{SOURCE.repository}",
        revision=files.revision,
        fingerprint=fingerprint(
            content_of(images, labels),
            split,
            f"{spec.transform} {placing}",
            config,
            ignore=_PLACING | (set() if distorted else config.augmentation),
        ),
        split=split,
        transform=spec.transform,
    )
    return PlacedDigits(info, task, read_glyphs(images, part, labels, f"{name}, {split} split"), placing, distortion if distorted else None)


def read_glyphs(images: EncodedImages, part: range, labels: Labels, where: str) -> Glyphs:
    """Decode all digits of a part of MNIST (about 8 MB for its test split). where: what errors call the part."""
    bad = {}
    pixels = np.zeros((len(part), SIDE, SIDE), dtype=np.uint8)
    numbers = np.full(len(part), -1)
    for place, row in enumerate(images.at(part)):
        try:
            numbers[place] = labels.checked(row)
            image = decode(row, 1).image
            if image.size != (SIDE, SIDE):
                raise BadImageError(f"{row.where}: expected a digit of {SIDE} x {SIDE} px, got {image.width} x {image.height}")
            pixels[place] = np.array(image)
        except BadImageError as wrong:
            bad[place] = f"{where}: {wrong}"
    return Glyphs(torch.from_numpy(pixels), torch.from_numpy(numbers), torch.arange(part.start, part.stop), bad)
