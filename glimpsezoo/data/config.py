"""The settings `--set data.KEY=value`. Torch-free: a command line is checked before anything heavy is loaded."""

import os.path
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, Task, load_string


class DataSettings(Settings):
    """The base of every data set's settings."""

    augmentation: ClassVar[frozenset[str]] = frozenset()
    """The keys that change training images only."""
    access: ClassVar[frozenset[str]] = frozenset({"streaming"})
    """The keys that say how the data are read and change no image."""


class SizedSettings(DataSettings):
    """Data whose image size can be chosen."""

    size: int | None = Field(None, ge=8)
    """The side of an image in pixels; None is the data set's own."""


class PlacedSettings(DataSettings):
    """Digits placed on a canvas."""

    seed: int = Field(0, ge=0, lt=2**32)
    """The seed of placements, noise and textures."""


class MnistSettings(DataSettings):
    """MNIST, and the data sets made from it."""

    augmentation: ClassVar[frozenset[str]] = frozenset({"rotation", "zoom"})

    streaming: bool = False
    """Read the Hub's files without keeping a copy."""
    rotation: float = Field(0.0, ge=0, le=45)
    """Training rotates each digit by up to this many degrees either way, drawn again in every epoch."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Training enlarges or shrinks each digit by up to this share, drawn again in every epoch."""


class CentredMnistSettings(MnistSettings):
    """MNIST as it is."""

    augmentation: ClassVar[frozenset[str]] = MnistSettings.augmentation | {"shift"}

    shift: int = Field(0, ge=0, le=28)
    """Training moves each digit by up to this many pixels either way, drawn again in every epoch."""


class PlacedMnistSettings(MnistSettings, PlacedSettings):
    """MNIST digits on a canvas."""

    places: int | None = Field(None, ge=1)
    """The number of placements per calibration and test digit; None is the data set's own."""


class NoisyMnistSettings(PlacedMnistSettings):
    """MNIST digits on a canvas of Gaussian noise."""

    augmentation: ClassVar[frozenset[str]] = PlacedMnistSettings.augmentation | {"noise_epochs"}

    noise_epochs: int = Field(0, ge=0)
    """Training begins with weaker noise, which grows over this many epochs."""


class RescaledMnistSettings(PlacedMnistSettings, SizedSettings):
    """MNIST digits on a canvas of 56 px, rescaled by area."""

    @field_validator("size")
    @classmethod
    def _halved(cls, size: int | None) -> int | None:
        if size not in (None, 14, 28, 56):
            raise ValueError(f"expected 14, 28 or 56, got {size}")
        return size


class CanvasMnistSettings(PlacedMnistSettings, SizedSettings):
    """MNIST digits on a canvas of 60 px or, by `size`, of 100 px."""

    @field_validator("size")
    @classmethod
    def _known(cls, size: int | None) -> int | None:
        if size not in (None, 60, 100):
            raise ValueError(f"expected 60 or 100, got {size}")
        return size


class AugmentedSettings(SizedSettings):
    """Natural images: their size and crop, and how training augments them."""

    augmentation: ClassVar[frozenset[str]] = frozenset({"seed", "crop_area", "crop_aspect", "interpolation", "colours"})

    crop: float | None = Field(None, gt=0, le=1)
    """The share of the shorter side that the centre crop covers, except in training; None is the data set's own."""
    seed: int = Field(0, ge=0, lt=2**32)
    """The seed of the training augmentation."""
    crop_area: float = Field(0.08, gt=0, le=1)
    """The smallest share of the image that a training crop covers."""
    crop_aspect: float = Field(4 / 3, ge=1)
    """The largest ratio of a training crop's sides."""
    interpolation: Literal["bilinear", "random"] = "bilinear"
    """How a training crop is resized; random draws nearest, bilinear, bicubic or area."""
    colours: Literal["autoaugment", "distort", "keep"] = "autoaugment"
    """How training changes colours: AutoAugment's ImageNet policy; random brightness, contrast and saturation; or not at all."""


class CataloguedImageSettings(AugmentedSettings):
    """A set of natural images from the catalogue."""

    streaming: bool = False
    """Read the Hub's files, or those of --data-dir, without keeping a copy."""


class OpenSettings(AugmentedSettings):
    """Images about which nothing is known in advance."""

    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour."""
    orientation: Literal["exif", "stored"] = "exif"
    """exif rotates images as their EXIF tag says; stored leaves them as they are stored."""
    background: Literal["black", "white", "grey", "ignored"] = "black"
    """The colour behind transparent pixels; ignored shows the colours that are stored in them."""

    @field_validator("channels", mode="before")
    @classmethod
    def _number(cls, channels: Any) -> Any:
        return int(channels) if isinstance(channels, str) and channels.isdigit() else channels


class FolderSettings(OpenSettings):
    """Any folder of class folders."""

    layout: Literal["auto", "classes", "splits"] = "auto"
    """Whether the folders in PATH are classes or splits; auto finds out, and asks where that is not clear."""
    train: str | None = None
    """The folder in PATH to train and calibrate on; None finds it."""
    test: str | None = None
    """The folder in PATH to measure on; None finds it; the folder of train holds out a part of it."""

    @field_validator("train", "test")
    @classmethod
    def _plain(cls, name: str | None) -> str | None:
        """One folder has one name, also with the slash of a shell's completion: the names are compared."""
        return os.path.normpath(name) if name else name


class HubSettings(OpenSettings):
    """Any image-classification set of the Hub."""

    streaming: bool = False
    """Read the Hub's files without keeping a copy."""
    subset: str | None = None
    """The configuration, where the data set has several."""
    image: str | None = None
    """The column that holds the image; None finds it."""
    label: str | None = None
    """The column that holds the label; None finds it."""
    train: str | None = None
    """The Hub's split to train and calibrate on; None finds it."""
    test: str | None = None
    """The Hub's split to measure on; None finds it."""


def task_of(spec: DatasetSpec, settings: Mapping[str, Any]) -> Task | None:
    """The task of the data set under these settings, without opening it; None if it is known only once the data are open.

    Raises `GlimpseZooError` for settings that the data set does not have.
    """
    config = load_string(spec.config).parse(settings, owner="data")
    if spec.task is None or not isinstance(config, SizedSettings) or config.size is None:
        return spec.task
    return replace(spec.task, image_size=(config.size, config.size))
