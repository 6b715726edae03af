"""Opens the sets of natural images in the catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimpsezoo.data import hub
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.columns import class_names, find_columns
from glimpsezoo.data.config import CataloguedImageSettings
from glimpsezoo.data.images import SplitSource
from glimpsezoo.data.labels import labels_by
from glimpsezoo.data.opening import Opening, opened
from glimpsezoo.data.splits import Division
from glimpsezoo.specs import DatasetSpec


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """A set of the catalogue that is on the Hub."""

    source: hub.HubSource
    test: str
    """The Hub's split that is measured."""
    division: Division
    """How the Hub's train split is divided."""
    first_classes: int | None = None
    """Keep only images of this many first classes."""

    @property
    def by_label(self) -> bool:
        """Whether the labels decide which images a split has."""
        return self.first_classes is not None or self.division.by_class


_IMAGENET = hub.HubSource("ILSVRC/imagenet-1k", folders=("imagenet-1k", "imagenet"), gated=True)
_CMC = hub.HubSource("clane9/imagenet-100", folders=("imagenet-100", "imagenet100-cmc"))
_TINY = hub.HubSource("zh-plus/tiny-imagenet", folders=("tiny-imagenet",))
HUB_SETS: Mapping[str, HubSet] = {
    "tiny-imagenet": HubSet(source=_TINY, test="valid", division=Division(every=20, by_class=True)),
    "imagenet": HubSet(source=_IMAGENET, test="validation", division=Division(head=10_000)),
    "imagenet100": HubSet(source=_IMAGENET, test="validation", division=Division(head=5_000), first_classes=100),
    "imagenet100-cmc": HubSet(source=_CMC, test="validation", division=Division(every=20)),
}


def open_catalogued(spec: DatasetSpec, name: str, split: str, config: CataloguedImageSettings, data_dir: Path | None) -> ImageData:
    """Open a split of a set in `HUB_SETS`, from the Hub or from a copy of its Parquet files at or below `data_dir`."""
    assert spec.task is not None
    known = HUB_SETS[spec.name]
    files = hub.find(known.source, data_dir)
    source = hub.source_split(files, known.test if split == "test" else "train")
    features = files.features(source)
    columns = find_columns(features, "image", "label")
    images = hub.open_images(files, source, columns, streaming=config.streaming, shuffled=split == "train")
    labels = labels_by(class_names(features["label"]), spec.task.classes, name)
    # The Hub's copy is known to be complete, so the labels of a stream from there are read only if they decide which images a split has.
    numbers = None if config.streaming and not files.local and not known.by_label else labels.numbers_of(images)
    candidates = np.arange(len(images))
    if known.first_classes is not None:
        assert numbers is not None
        candidates = ((numbers >= 0) & (numbers < known.first_classes)).nonzero()[0]
    chosen = candidates if split == "test" else known.division.part(candidates, split, numbers)
    opening = Opening(name, split, config, f"hf:{known.source.repository}", files.revision)
    return opened(opening, spec.task, SplitSource(images, chosen, labels, spec.crop, numbers))
