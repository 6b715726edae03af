"""A training that is ready to run, and the card that it writes."""

import platform
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from glimpsezoo.data.base import BadImageError
from glimpsezoo.data.memory import InMemory
from glimpsezoo.data.opening import told
from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.files import output_to, write_whole
from glimpsezoo.ranks import crowding
from glimpsezoo.reports.figures import training_picture
from glimpsezoo.reports.pictures.svg import svg_file
from glimpsezoo.reports.readme import run_command, write_card_readme
from glimpsezoo.settings import Settings
from glimpsezoo.specs import LoggerSpec
from glimpsezoo.training.folder import CHECKPOINT, locked
from glimpsezoo.training.job import TrainingJob
from glimpsezoo.training.loggers import Loggers
from glimpsezoo.training.loop import Progress, train
from glimpsezoo.training.optimisers import unmatched
from glimpsezoo.training.target import Target
from glimpsezoo.zoo.card_config import CardConfig, CardData, CardTask
from glimpsezoo.zoo.cards import CURVE, Card, training_log, write_card
from glimpsezoo.zoo.public_names import command_line, published_word


@dataclass
class TrainingWork:
    """A training that is ready to run: iterate over its `steps`, then `finish` it."""

    target: Target
    job: TrainingJob
    settings: Settings
    """Settings of the model."""
    data: CardData
    data_dir: str | None
    start: Card | None = None
    """The card with the weights that the training starts from, if any."""
    seconds: float = 0.0
    loggers: tuple[LoggerSpec, ...] = ()
    """What else is told of every epoch."""
    said: tuple[str, ...] = ()
    """What was chosen for the user, one line each."""
    recipe_name: str = ""
    """A recipe of the plugin, the user's file, or 'generic'."""
    finished: Card | None = None
    """The card of this training, if it is finished already."""

    @property
    def summary(self) -> str:
        """One line about the training that is about to run."""
        start = f"the weights of {self.start.name} ({self.start.origin or self.start.folder})" if self.start else ""
        if not self.job.recipe.phase:
            return f"{self.target.card}: nothing to train: {start} under other settings"
        lengths = [counted(phase.epochs, "epoch") if phase.epochs else counted(phase.steps or 0, "step") for phase in self.job.recipe.phase]
        phases = ", ".join(f"{phase.name} ({length})" for phase, length in zip(self.job.recipe.phase, lengths, strict=True))
        resumed = "; resumes from its checkpoint" if (self.job.folder / CHECKPOINT).exists() else ""
        starts = f"; starts with {start}" if start else ""
        images = f"{counted(len(self.job.train), 'training image')}, batches of {self.job.recipe.batch_size}"
        return f"{self.target.card}: {images}: {phases}{starts}{resumed}"

    @property
    def notes(self) -> list[str]:
        """What was chosen for the user, what was inferred about the data, and whether they are held in memory."""
        data, lines = self.job.train, [*self.said, *unmatched(self.job.model, self.job.recipe), told(self.job.train), crowding()]
        if isinstance(data, InMemory):
            lines.append(f"{len(data):,} training images are decoded once and held in memory, about {data.expected / 1e9:.2g} GB")
        return [line for line in lines if line]

    def steps(self, asked: Callable[[], bool] = lambda: False) -> Generator[Progress]:
        """Train to the end, and yield the progress after every optimiser step. Closing the iterator saves a checkpoint.

        asked: whether this process is asked to stop, of which `Progress.stops` tells all processes.
        """
        told = self.loggers if self.job.recipe.phase else ()  # there is nothing to tell of
        loggers = Loggers(told, self.job.folder, self.target.card, self._told())
        with closing(loggers), closing(train(self.job, asked)) as lines, self._advised():
            for line in lines:
                self.seconds = line.seconds
                if line.ends_epoch:
                    loggers.log(line.done, _values(line))
                yield line

    @contextmanager
    def _advised(self) -> Iterator[None]:
        """Add advice to the error of a bad image. A training cannot leave it out, because that would change the batches."""
        try:
            yield
        except BadImageError as bad:
            raise GlimpseZooError(
                f"{bad}: remove or repair it ('glimpsezoo show {self.target.data}' looks for more), then repeat the command with --fresh"
            ) from None

    def _told(self) -> dict[str, Any]:
        """The settings of the training, for loggers."""
        settings, data = self.settings.model_dump(mode="json"), self.data.model_dump(mode="json")
        return {"model": self.target.model, "settings": settings, "data": data, **self._recipe()}

    def config(self) -> CardConfig:
        """What the card says of itself, still without weights."""
        job, provenance = self.job, self.target.spec.provenance
        assert provenance is not None
        threads = f"{counted(job.share.world, 'process')} of " if job.share.world > 1 else ""
        threads += f"{torch.get_num_threads()} threads"
        return CardConfig(
            name=self.target.card,
            model=self.target.model,
            plugin=provenance.distribution,
            config=self.settings.model_dump(mode="json"),
            task=CardTask.model_validate(vars(job.model.task)),
            data=self.data,
            weights=None,
            trained={
                "command": command_line(),
                "recipe_name": self.recipe_name,
                **self._recipe(),
                "minutes": round(self.seconds / 60, 1),
                "machine": f"{platform.machine()}, {threads}, {job.device.type}",
                "torch": torch.__version__,
                "data": job.train.info.fingerprint,
            },
        )

    def finish(self) -> Card:
        """Write the card and remove the checkpoint. Raises `GlimpseZooError` if the folder cannot be written."""
        folder = self.job.folder
        with locked(folder), output_to(folder):
            card = write_card(folder, self.config(), self.job.model, keep_log=True, beside=_describe)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return card

    def _recipe(self) -> dict[str, Any]:
        """The recipe as the card records it, and the weights that the training started with."""
        recipe = self.job.recipe.model_dump(mode="json", exclude_defaults=True)
        if self.start is None:
            return {"recipe": recipe}
        recipe["start"] = published_word(recipe["start"])
        return {"recipe": recipe, "start": {"card": self.start.name, "sha256": self.job.start}}

    def run_command(self, *cards: Card) -> str:
        """The command that measures the new card from this folder, or several by this recipe."""
        typed = self.target.data if self.target.data != self.data.name else None
        return run_command(cards[0], *(str(card.folder) for card in cards), data=typed, data_dir=self.data_dir)


def _values(line: Progress) -> dict[str, float]:
    """The numbers of an epoch, as loggers get them."""
    measured = {} if line.calibration is None else {"calibration_top1": line.calibration}
    return {**{f"loss/{name}": value for name, value in line.losses.items()}, "lr": line.lr, "epoch": line.epoch, **measured}


def _describe(card: Card) -> None:
    draw_training(card)
    write_card_readme(card)


def draw_training(card: Card) -> None:
    """Draw the training log of a card, if it has one, into the card's folder."""
    picture = training_picture(card.name, training_log(card.folder))
    if picture is not None:
        write_whole(card.folder / CURVE, svg_file(picture).encode())
