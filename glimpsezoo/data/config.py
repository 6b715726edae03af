"""What `--set data.KEY=value` reaches. Torch-free: a command line is checked before anything heavy is loaded."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, Task, load_string


class DataSettings(Settings):
    """What every data set's settings have.

    augmentation: the keys that change training images alone. access: those that say how the data are read, and change no image.
    """

    augmentation: ClassVar[frozenset[str]] = frozenset()
    access: ClassVar[frozenset[str]] = frozenset({"streaming"})


class SizedSettings(DataSettings):
    """Data whose images come in the size that is asked for."""

    size: int | None = Field(None, ge=8, description="side of an image in pixels; None is the data set's own")


class PlacedSettings(DataSettings):
    """Digits placed on a canvas."""

    seed: int = Field(0, ge=0, lt=2**32, description="seed of placements, noise and textures")


class MnistSettings(DataSettings):
    """MNIST, and what is made of it."""

    augmentation: ClassVar[frozenset[str]] = frozenset({"rotation", "zoom"})

    streaming: bool = Field(False, description="read the Hub's files without keeping a copy")
    rotation: float = Field(
        0.0, ge=0, le=45, description="training turns each digit by up to so many degrees each way, anew in every epoch"
    )
    zoom: float = Field(0.0, ge=0, lt=1, description="training stretches each digit by up to such a share each way, anew in every epoch")


class CentredMnistSettings(MnistSettings):
    """MNIST as it is."""

    augmentation: ClassVar[frozenset[str]] = MnistSettings.augmentation | {"shift"}

    shift: int = Field(0, ge=0, le=28, description="training moves each digit by up to so many pixels each way, anew in every epoch")


class PlacedMnistSettings(MnistSettings, PlacedSettings):
    """MNIST digits on a canvas."""

    places: int | None = Field(None, ge=1, description="placements of each calibration and test digit; None is the data set's own number")


class NoisyMnistSettings(PlacedMnistSettings):
    """MNIST digits on a canvas of Gaussian noise."""

    augmentation: ClassVar[frozenset[str]] = PlacedMnistSettings.augmentation | {"noise_epochs"}

    noise_epochs: int = Field(0, ge=0, description="training begins with weaker noise, which grows over so many epochs")


class RescaledMnistSettings(PlacedMnistSettings, SizedSettings):
    """MNIST digits on a canvas of 56 px, rescaled by area."""

    @field_validator("size")
    @classmethod
    def _halved(cls, size: int | None) -> int | None:
        if size not in (None, 14, 28, 56):
            raise ValueError(f"expected 14, 28 or 56, got {size}")
        return size


class AugmentedSettings(SizedSettings):
    """Natural images: how big they are, and how training varies them."""

    augmentation: ClassVar[frozenset[str]] = frozenset({"seed", "crop_area", "crop_aspect", "interpolation", "colours"})

    seed: int = Field(0, ge=0, lt=2**32, description="seed of the training augmentation")
    crop_area: float = Field(0.08, gt=0, le=1, description="least share of the image that a training crop covers")
    crop_aspect: float = Field(4 / 3, ge=1, description="largest ratio of a training crop's sides")
    interpolation: Literal["bilinear", "random"] = Field(
        "bilinear", description="how a training crop is resized; random: nearest, bilinear, bicubic or area"
    )
    colours: Literal["autoaugment", "distort", "keep"] = Field(
        "autoaugment", description="AutoAugment's ImageNet policy; random brightness, contrast and saturation; or none"
    )


class CataloguedImageSettings(AugmentedSettings):
    """A set of natural images that the catalogue knows."""

    streaming: bool = Field(False, description="read the Hub's files, or those of --data-dir, without keeping a copy")


class OpenSettings(AugmentedSettings):
    """Any images, of which nothing is known beforehand."""

    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for colour")
    orientation: Literal["exif", "stored"] = Field(
        "exif", description="exif turns images upright as their EXIF says; stored leaves them as they are stored"
    )
    background: Literal["black", "white", "grey", "ignored"] = Field(
        "black", description="what transparent pixels are laid over; ignored shows the colours that are stored there"
    )

    @field_validator("channels", mode="before")
    @classmethod
    def _number(cls, channels: Any) -> Any:
        return int(channels) if isinstance(channels, str) and channels.isdigit() else channels


class FolderSettings(OpenSettings):
    """Any folder of class folders."""

    layout: Literal["auto", "classes", "splits"] = Field(
        "auto", description="whether the folders in PATH are classes or splits; auto finds out, and asks where that is not clear"
    )
    train: str | None = Field(None, description="the folder in PATH to train and calibrate on; None finds it")
    test: str | None = Field(None, description="the folder in PATH to measure; None finds it; that of train holds a part of it out")


class HubSettings(OpenSettings):
    """Any image-classification set of the Hub."""

    streaming: bool = Field(False, description="read the Hub's files without keeping a copy")
    subset: str | None = Field(None, description="the configuration, where the data set has several")
    image: str | None = Field(None, description="the column that holds the image; None finds it")
    label: str | None = Field(None, description="the column that holds the label; None finds it")
    train: str | None = Field(None, description="the Hub's split to train and calibrate on; None finds it")
    test: str | None = Field(None, description="the Hub's split to measure; None finds it")


def task_of(spec: DatasetSpec, settings: Mapping[str, Any]) -> Task | None:
    """What the data set asks of a model under these settings, without opening it; None where only opening it tells.

    Raises `GlimpseZooError` for settings that the data set does not have.
    """
    config = load_string(spec.config).parse(settings, owner="data")
    if spec.task is None or not isinstance(config, SizedSettings) or config.size is None:
        return spec.task
    return replace(spec.task, image_size=(config.size, config.size))
