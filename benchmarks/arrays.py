"""Tiny ImageNet as plain NumPy arrays, for a machine without a network and without `datasets`.

A folder of arrays has the two sources train and test, with all images of each in the order of the Hub's files:

    SOURCE-00.npy, ...    uint8: the encoded images, one behind the other, in pieces that end with an image
    SOURCE-sizes.npy      int64 [N]: the bytes of each image
    SOURCE-labels.npy     int64 [N]: its class number
    SPLIT-rows.npy        int64: the rows of train, calibration and test in their source
    facts.json            the hash of each source, from which the split gets the fingerprint that it has elsewhere

The images stay encoded, because that is a tenth of their pixels, and the machine that trains decodes them in seconds.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glimpsezoo.data.base import OnBadImage
from glimpsezoo.data.catalogue import NATURAL
from glimpsezoo.data.config import CataloguedImageSettings
from glimpsezoo.data.encoded import EncodedImage, EncodedImages
from glimpsezoo.data.images import NaturalImages, SplitSource
from glimpsezoo.data.labels import Labels
from glimpsezoo.data.loading import SPLITS, open_data
from glimpsezoo.data.opening import Opening, opened
from glimpsezoo.data.sources import HUB_SETS
from glimpsezoo.errors import GlimpseZooError

NAME = "tiny-imagenet"
SPEC = next(spec for spec in NATURAL if spec.name == NAME)
PIECE = 28_000_000  # bytes of a piece
FACTS = "facts.json"


def source_of(split: str) -> str:
    """The source that holds the images of a split."""
    return "test" if split == "test" else "train"


def prepare(data_dir: Path | None, folder: Path, *, piece: int = PIECE, on_bad_image: OnBadImage = "fail") -> None:
    """Write all splits to a folder, in pieces of at most `piece` bytes.

    Raises `GlimpseZooError` if the data are not there and, unless bad images are skipped, if a class has no image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {}
    for split in SPLITS:
        data = open_data(SPEC, NAME, split, {}, data_dir, on_bad_image=on_bad_image)
        assert isinstance(data, NaturalImages), "the catalogue's source of Tiny ImageNet"
        source, images = source_of(split), data.source.images
        np.save(folder / f"{split}-rows.npy", np.asarray(data.source.chosen, dtype=np.int64))
        if source not in facts:
            facts[source] = {"digest": images.digest(), "revision": data.info.revision}
            np.save(folder / f"{source}-labels.npy", data.source.labels.numbers_of(images))
            encoded = [row.image or b"" for row in images.at(range(len(images)))]
            np.save(folder / f"{source}-sizes.npy", np.array([len(image) for image in encoded], dtype=np.int64))
            for number, part in enumerate(_pieces(encoded, piece)):
                np.save(folder / f"{source}-{number:02}.npy", np.frombuffer(part, dtype=np.uint8))
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def _pieces(encoded: Iterable[bytes], piece: int) -> Iterator[bytes]:
    """The images one behind the other, cut after the last image that fits into `piece` bytes."""
    part = bytearray()
    for image in encoded:
        if part and len(part) + len(image) > piece:
            yield bytes(part)
            part = bytearray()
        part += image
    yield bytes(part)


class ArrayImages(EncodedImages):
    """The encoded images of a source in a folder of arrays."""

    def __init__(self, folder: Path, source: str) -> None:
        pieces = sorted(folder.glob(f"{source}-[0-9]*.npy"))
        if not pieces or not (folder / FACTS).exists():
            raise GlimpseZooError(f"expected a folder of arrays, got {str(folder)!r} without them: write it by 'gpu.py prepare -o DIR'")
        self.bytes = np.concatenate([np.load(file) for file in pieces])  # [bytes]
        self.stops = np.load(folder / f"{source}-sizes.npy").cumsum()  # [N], where each image ends
        self.numbers = np.load(folder / f"{source}-labels.npy")  # [N]
        self.source, self.facts = source, json.loads((folder / FACTS).read_text())[source]
        if len(self.bytes) != self.stops[-1]:
            raise GlimpseZooError(
                f"expected {self.stops[-1]:,} bytes of {source} images in {str(folder)!r}, got {len(self.bytes):,}: copy all pieces"
            )

    def __len__(self) -> int:
        return len(self.stops)

    def at(self, numbers: Iterable[int]) -> Iterator[EncodedImage]:
        for number in numbers:
            start = self.stops[number - 1] if number else 0
            content = self.bytes[start : self.stops[number]].tobytes()
            yield EncodedImage(content, int(self.numbers[number]), f"image {number} of {self.source}")

    def label_column(self) -> Any:
        import pyarrow as pa

        return pa.array(self.numbers)

    def digest(self) -> str:
        return self.facts["digest"]


def open_arrays(folder: Path, split: str, settings: Mapping[str, Any] | None = None) -> NaturalImages:
    """A split in a folder of arrays, the same examples with the same fingerprint as `open_data` opens elsewhere.

    settings: those of the data set, as text or typed. Raises `GlimpseZooError` for a folder without the arrays, and for wrong settings.
    """
    assert SPEC.task is not None
    images = ArrayImages(folder, source_of(split))
    config = CataloguedImageSettings.parse(settings or {}, owner="data")
    known = HUB_SETS[NAME]
    opening = Opening(NAME, split, config, f"hf:{known.source.repository}", images.facts["revision"])
    rows = np.load(folder / f"{split}-rows.npy")
    return opened(opening, SPEC.task, SplitSource(images, rows, Labels(len(SPEC.task.classes)), SPEC.crop, images.numbers))
