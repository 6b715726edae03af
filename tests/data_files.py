"""Small images, and Parquet files and folders with the layout of the Hub."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from glimpsezoo.data import ImageData, batches, open_data
from glimpsezoo.specs import DatasetSpec
from glimpsezoo.zoo.plugins import registry


def spec_of(name: str) -> DatasetSpec:
    return registry().find(DatasetSpec, name)


def opened(name: str, split: str, data_dir: Path | None = None, **settings: Any) -> ImageData:
    on_bad_image = settings.pop("on_bad_image", "fail")
    return open_data(spec_of(name), name, split, settings, data_dir, on_bad_image=on_bad_image)


def picture(seed: int, side: int = 20, channels: int = 3) -> Image.Image:
    """Smooth random colours, which JPEG hardly changes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    return Image.fromarray(coarse.squeeze()).resize((side, side), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def write_parquet(
    path: Path, images: Sequence[bytes | None], labels: Sequence[Any], names: Sequence[str] | None = None, *, group: int = 7, **columns: str
) -> None:
    """Write a file as `datasets` does. names: of the classes, or None for a plain column. columns: other names of image and label."""
    image, label = columns.get("image", "image"), columns.get("label", "label")
    kind = datasets.ClassLabel(names=list(names)) if names else datasets.Value("string" if isinstance(labels[0], str) else "int64")
    features = datasets.Features({image: datasets.Image(), label: kind})
    records = {image: [None if content is None else {"bytes": content, "path": None} for content in images], label: list(labels)}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict({key: records[key] for key in features}, features=features.copy())
    table.to_parquet(path, batch_size=group)


def tiny_imagenet(folder: Path, train: int = 120, valid: int = 40, *, side: int = 64, shards: int = 2) -> Path:
    """A small copy with the layout and classes of Tiny ImageNet; image k is `picture(k)`, of class k % 5."""
    names = spec_of("tiny-imagenet").task.classes  # pyright: ignore[reportOptionalMemberAccess]
    size = train // shards
    for shard in range(shards):
        rows = range(shard * size, (shard + 1) * size)
        content = [encoded(picture(k, side), "JPEG") for k in rows]
        write_parquet(folder / "data" / f"train-{shard:05}-of-{shards:05}.parquet", content, [k % 5 for k in rows], names)
    content = [encoded(picture(1000 + k, side), "JPEG") for k in range(valid)]
    write_parquet(folder / "data" / "valid-00000-of-00001.parquet", content, [k % 5 for k in range(valid)], names)
    return folder


def mnist(folder: Path, train: int = 40, test: int = 12) -> Path:
    """A small copy with the layout of MNIST: digit k is a grey picture of 28 px with a white pixel, of class k % 10."""
    names = [str(digit) for digit in range(10)]
    for split, count in (("train", train), ("test", test)):
        content = [encoded(glyph(k + 500 * (split == "test"))) for k in range(count)]
        write_parquet(folder / "mnist" / f"{split}-00000-of-00001.parquet", content, [k % 10 for k in range(count)], names)
    return folder


def glyph(seed: int) -> Image.Image:
    pixels = np.array(picture(seed, 28, 1))
    pixels[0, 0], pixels[-1, -1] = 255, 255  # marked corners, to find its place
    return Image.fromarray(pixels)


def flat(value: int, side: int = 16) -> Image.Image:
    """One colour: 50 is dark, 200 is light."""
    return Image.new("RGB", (side, side), (value,) * 3)


def save(image: Image.Image, *places: Path, **how: Any) -> None:
    """Write an image file to each of these places, and create the folders."""
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place, **how)


def dark_and_light(folder: Path, dark: str = "dark", light: str = "light", count: int = 10) -> None:
    """Two class folders that differ in brightness."""
    for k in range(count):
        save(flat(50 + k), folder / dark / f"{k}.png")
        save(flat(200 + k), folder / light / f"{k}.png")


def right(data: ImageData, dark: str = "dark", light: str = "light") -> float:
    """The accuracy of a classifier by brightness, on the readable images of a split."""
    found = [
        data.task.classes[label] == (light if image.mean() > 0.5 else dark)
        for batch in batches(data, 0, len(data), 32, on_bad_image="skip")
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True)
    ]
    return sum(found) / len(found)
