"""Opening the sets of natural images that the catalogue knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimpsezoo.data import hub
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.columns import class_names, find_columns
from glimpsezoo.data.config import CataloguedImageSettings
from glimpsezoo.data.images import ImageRows
from glimpsezoo.data.labels import labels_by
from glimpsezoo.data.opening import CROP, Opening, opened
from glimpsezoo.data.splits import Division
from glimpsezoo.specs import DatasetSpec


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """A set of the Hub that the catalogue knows. test: the split of the Hub that is measured.

    first_classes: only rows of so many classes. crop: see `images.fitted`.
    """

    request: hub.Request
    test: str
    division: Division
    first_classes: int | None = None
    crop: float = CROP

    @property
    def by_label(self) -> bool:
        """Whether labels decide which rows a split has."""
        return self.first_classes is not None or self.division.by_class


_IMAGENET = hub.Request("ILSVRC/imagenet-1k", folders=("imagenet-1k", "imagenet"), gated=True)
_CMC = hub.Request("clane9/imagenet-100", folders=("imagenet-100", "imagenet100-cmc"))
_TINY = hub.Request("zh-plus/tiny-imagenet", folders=("tiny-imagenet",))
HUB_SETS: Mapping[str, HubSet] = {
    "tiny-imagenet": HubSet(request=_TINY, test="valid", division=Division(every=20, by_class=True), crop=1.0),
    "imagenet": HubSet(request=_IMAGENET, test="validation", division=Division(head=10_000)),
    "imagenet100": HubSet(request=_IMAGENET, test="validation", division=Division(head=5_000), first_classes=100),
    "imagenet100-cmc": HubSet(request=_CMC, test="validation", division=Division(every=20)),
}


def open_catalogued(spec: DatasetSpec, name: str, split: str, config: CataloguedImageSettings, data_dir: Path | None) -> ImageData:
    """Open a split of a set in `HUB_SETS`, from the Hub or from a copy of its Parquet files at or below `data_dir`."""
    assert spec.task is not None
    known = HUB_SETS[spec.name]
    found = hub.find(known.request, data_dir)
    source = hub.source_split(found, known.test if split == "test" else "train")
    features = found.features(source)
    columns = find_columns(features, "image", "label")
    rows = hub.open_rows(found, source, columns, streaming=config.streaming, shuffled=split == "train")
    labels = labels_by(class_names(features["label"]), spec.task.classes, name)
    # A stream's labels are read ahead only where they decide which rows a split has.
    numbers = None if config.streaming and not known.by_label else labels.numbers_of(rows)
    candidates = np.arange(len(rows))
    if known.first_classes is not None:
        assert numbers is not None
        candidates = ((numbers >= 0) & (numbers < known.first_classes)).nonzero()[0]
    chosen = candidates if split == "test" else known.division.rows(candidates, split, numbers)
    opening = Opening(name, split, config, f"hf:{known.request.repository}", found.revision)
    return opened(opening, spec.task, ImageRows(rows, chosen, labels, known.crop, numbers))
