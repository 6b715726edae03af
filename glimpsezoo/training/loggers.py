"""Loggers: what else is told how a training goes, after every epoch. Their packages are optional and imported when one is used."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.specs import LoggerSpec, load_string

PROJECT = "glimpsezoo"  # where wandb and trackio put trainings, unless their own environment variables say otherwise


class TrainingLogger(ABC):
    """Is told of every epoch of a training, and shows it somewhere else."""

    @abstractmethod
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """A training begins or resumes.

        folder: that of the training, for files. name: that of the card. settings: the model, its settings, the data and the recipe, as JSON
        values.
        """

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """An epoch ended after so many optimiser steps in all training phases.

        values: `loss/TERM`, the mean of each term of the loss over the epoch; `lr`; `epoch`, its number in its training phase; and
        `calibration_top1`, in [0, 1], if it was measured.
        """

    @abstractmethod
    def close(self) -> None:
        """The training ended, or was stopped."""


class Loggers:
    """The loggers of a training. What they print goes to standard error. A logger that fails raises `GlimpseZooError`."""

    def __init__(self, specs: Iterable[LoggerSpec], folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.opened: dict[str, TrainingLogger] = {}
        try:
            for spec in specs:
                with _guarded(spec.name):
                    self.opened[spec.name] = load_string(spec.logger)(folder, name, settings)
        except GlimpseZooError:
            with suppress(GlimpseZooError):
                self.close()
            raise

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, logger in self.opened.items():
            with _guarded(name):
                logger.log(step, values)

    def close(self) -> None:
        with ExitStack() as closing:  # all of them, whichever fails
            while self.opened:
                name, logger = self.opened.popitem()
                closing.enter_context(_guarded(name))
                closing.callback(logger.close)


@contextmanager
def _guarded(name: str) -> Iterator[None]:
    try:
        with redirect_stdout(sys.stderr):
            yield
    except GlimpseZooError:
        raise
    except Exception as error:  # the packages raise anything
        raise GlimpseZooError(
            f"the logger {name!r} failed ({type(error).__name__}: {one_line(error):.150}): repeat the command without it, and it resumes"
        ) from error


class TensorBoard(TrainingLogger):
    """Event files in the folder `tensorboard` of the training."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))
        self.writer.add_text("training", f"{name}: {settings}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


class Wandb(TrainingLogger):
    """A run of Weights & Biases."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.run = import_module("wandb").init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=name, dir=str(folder), config=dict(settings)
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio(TrainingLogger):
    """A run of trackio, which keeps it on this machine."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.trackio = import_module("trackio")
        self.trackio.init(project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=name, config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.trackio.log(dict(values), step=step)

    def close(self) -> None:
        self.trackio.finish()
