"""The training loop: phase after phase, logged, checkpointed and exactly resumable.

Every step depends only on the weights, the recipe and the index of the step: batches, augmentation and noise are derived from (seed,
training phase, step), and torch is seeded in each step. A training that is interrupted and resumed therefore ends with the same weights
as one that is not.
"""

import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from glimpsezoo.core.inference import inference
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.base import Batch
from glimpsezoo.data.loading import batches, training_batches
from glimpsezoo.data.memory import fits
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.environment import channels_last
from glimpsezoo.evaluation.memory import Parts
from glimpsezoo.training.adversarial import PER_IMAGE
from glimpsezoo.training.folder import append_to_log, load_checkpoint, locked, remove_log, write_checkpoint, write_log
from glimpsezoo.training.job import TrainingJob, TrainingPhase
from glimpsezoo.training.optimisers import choose_trainable, make_optimiser, make_schedule
from glimpsezoo.training.probe import check_share
from glimpsezoo.training.shared import Share
from glimpsezoo.training.step import compute_gradients
from glimpsezoo.zoo.recipes import PhaseRecipe

CALIBRATIONS = 30  # how often the calibration accuracy is measured in a training phase, about
CALIBRATION_BATCH = 256


@dataclass(frozen=True)
class Progress:
    """How far a training is after an optimiser step."""

    phase: str
    """Name of the training phase."""
    epoch: int
    """Number of the epoch in the training phase, from 1."""
    done: int
    """Optimiser steps taken, in all training phases."""
    total: int
    """Optimiser steps of the whole training."""
    losses: dict[str, float]
    """Mean of each term of the loss over the epoch so far."""
    seconds: float
    """Seconds of training, including those before an interruption."""
    calibration: float | None = None
    """Top-1 accuracy on the calibration split, after an epoch in which it was measured."""
    epochs: int = 0
    """Epochs of the training phase."""
    ends_epoch: bool = False
    """Whether the step was the last one of its epoch."""
    lr: float = 0.0
    """Learning rate of the next step."""
    stops: bool = False
    """Whether any process was asked to stop; then all stop after this step."""


def train(job: TrainingJob, asked: Callable[[], bool] = lambda: False) -> Generator[Progress]:
    """Train, and yield the progress after every step. The model holds the final weights when the iterator ends.

    Resumes from the folder's checkpoint if there is one of the same job. Closing the iterator between two steps writes a checkpoint. An
    error or interruption within a step keeps the last checkpoint, because half a step cannot be resumed; the last step of an epoch
    includes its line in the log. Raises `GlimpseZooError` if the folder holds a checkpoint of another job, if another training is running
    in it, if it cannot be written, or if a loss is not finite.

    asked: whether this process is asked to stop. Several processes (`job.share`) train together, step by step; the first one writes.
    """
    with locked(job.folder) if job.share.rank == 0 else nullcontext():
        run = _TrainingRun(job, asked)
        run.restore()
        try:
            for index in range(run.phase, len(job.recipe.phase)):
                yield from run.train_phase(index)
        finally:
            if run.between_steps and (job.share.world == 1 or run.stops):  # without the others, a process cannot save theirs
                run.save()


class _TrainingRun:
    """The state of a running training."""

    def __init__(self, job: TrainingJob, asked: Callable[[], bool]) -> None:
        self.job, self.asked, self.share = job, asked, job.share
        self.stops = self.saves = False  # what all processes agree to do after the step
        self.recipe = job.recipe
        self.model = job.model.to(job.device)
        channels_last(self.model)
        self.phase, self.step = 0, 0  # the current training phase and its next step
        self.between_steps = True
        self.optimiser: torch.optim.Optimizer | None = None
        self.schedule: torch.optim.lr_scheduler.LRScheduler | None = None
        self.memory: dict[str, Tensor] = {}
        self.calibration: list[Batch] = []  # held in memory once read, if it fits
        self.sums: dict[str, float] = {}  # of the losses in the current epoch
        self.log: list[dict[str, Any]] = []  # its lines so far
        self.began = self.saved = time.monotonic()
        self.seconds = 0.0  # of the training before it was interrupted
        self.restored: dict[str, Any] = {}

    def train_phase(self, index: int) -> Iterator[Progress]:
        phase = self.recipe.phase[index]
        self.between_steps = False  # a checkpoint without what `_begin` restores would replace the one that has it
        self._begin(index, phase)
        self.between_steps = True
        total = self.job.steps_of(index)
        # Epochs of the data are numbered over all training phases: no two phases see the same placements, and noise that grows over
        # epochs (data.noise_epochs) keeps growing. Older cards with several training phases were trained with numbers that began at
        # 10,000 times the index of the phase, so that the noise of a second phase was at full strength from its start. The batches of a
        # first phase are the same in both.
        before = sum(self.job.epochs_of(earlier) for earlier in range(index))
        while self.step < total:
            epoch, first = divmod(self.step, self.job.per_epoch(index))
            if first == 0:
                self.sums = {}
            source = training_batches(
                self.job.train,
                before + epoch,
                self.recipe.seed,
                self.recipe.batch_size,
                self.job.workers,
                first_batch=first // phase.replays,
                augment=phase.augment,
                share=self.share.of,
            )
            replayed = (batch for batch in source for _ in range(phase.replays))
            for batch in islice(replayed, first % phase.replays, None):
                self.between_steps = False
                self._step(phase, batch, epoch)
                last = self.step % self.job.per_epoch(index) == 0 or self.step == total
                calibration = self._end_epoch(phase, epoch, last=self.step == total) if last else None
                self.between_steps = True
                yield self._progress(phase, epoch, calibration, ends_epoch=last)
                if self.step == total or self.saves:
                    self.save()
                if last:
                    break
        self.phase, self.step, self.optimiser = index + 1, 0, None

    def _begin(self, index: int, phase: PhaseRecipe) -> None:
        """Choose the trainable parameters, and create or restore the optimiser and the schedule."""
        choose_trainable(self.model, phase)
        self.phase = index
        self.optimiser = make_optimiser(phase, [p for p in self.model.parameters() if p.requires_grad])
        self.schedule = make_schedule(phase, self.optimiser, self.job.steps_of(index))
        if self.restored:
            self.optimiser.load_state_dict(self.restored["optimiser"])
            self.schedule.load_state_dict(self.restored["schedule"])
            self.restored = {}
        if self.share.world > 1:
            kept = {name: tensor for name, tensor in self.memory.items() if name not in PER_IMAGE}
            check_share(self.job, phase, replace(self._context(phase, torch.zeros(0, dtype=torch.long), 0), memory=kept))

    def _step(self, phase: PhaseRecipe, batch: Batch, epoch: int) -> None:
        assert self.optimiser is not None
        assert self.schedule is not None
        device = self.job.device
        images, labels, ids = (t.to(device, non_blocking=True) for t in (batch.images, batch.labels, batch.ids))
        context = self._context(phase, ids, epoch)
        torch.manual_seed(self._seed())
        names, terms = compute_gradients(self.job, phase, images, labels, context, self.job.images_of(self.phase, self.step))
        if phase.clip:
            nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], phase.clip)
        self.optimiser.step()
        self.schedule.step()
        values = dict(zip(names, self._agree(terms.tolist()), strict=True))  # waits for the device, once per step
        if not all(map(math.isfinite, values.values())):
            found = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            raise GlimpseZooError(f"the loss is not finite in step {self.step} of phase {phase.name!r} ({found}): lower the learning rate")
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.step += 1

    def _seed(self) -> int:
        """Of the next step."""
        return _step_seed(self.recipe.seed, self.phase, self.step)

    def _context(self, phase: PhaseRecipe, ids: Tensor, epoch: int) -> TrainingPhase:
        return TrainingPhase(
            name=phase.name,
            options=phase.options,
            step=self.step,
            steps=self.job.steps_of(self.phase),
            epoch=epoch,
            noise=Noise.of(self._seed(), ids),
            memory=self.memory,
            share=self.share,
        )

    def _agree(self, terms: list[float]) -> list[float]:
        """The terms of the whole batch. Decides with the other processes whether to stop or to save after this step."""
        due = self.share.rank == 0 and time.monotonic() - self.saved > self.job.checkpoint_seconds
        asked = self.share.world > 1 and self.asked()
        sums = float(self.share.sums)
        *terms, others, stops, saves = self.share.total(torch.tensor([*terms, sums, asked, due], dtype=torch.double)).tolist()
        if others != sums * self.share.world:
            raise GlimpseZooError(
                f"expected {self.share.world} processes that add up equally often, got some that did not in step {self.step} of phase "
                f"{self.recipe.phase[self.phase].name!r}: train on one process"
            )
        self.stops, self.saves = bool(stops), bool(saves)
        return terms

    def _end_epoch(self, phase: PhaseRecipe, epoch: int, *, last: bool) -> float | None:
        """Log the epoch. Returns the calibration accuracy, which is measured now and then and at the end of the training phase."""
        calibration = None
        if last or (epoch + 1) % max(1, self.job.epochs_of(self.phase) // CALIBRATIONS) == 0:
            calibration = calibration_accuracy(self.model, self._calibration_batches(), self.job.device, self.share)
        assert self.optimiser is not None
        line = {
            "phase_index": self.phase,
            "phase": phase.name,
            "epoch": epoch + 1,
            "step": self.step,
            "lr": self.optimiser.param_groups[0]["lr"],
            "losses": self._mean_losses(),
            "calibration_top1": calibration,
        }
        if self.share.rank == 0:
            append_to_log(self.job.folder, line)
        self.log.append(line)
        return calibration

    def _calibration_batches(self) -> Iterable[Batch]:
        """This process's part of the calibration split, in whole batches, which is read once if it fits into memory."""
        if self.calibration:
            return self.calibration
        data, device, rank, world = self.job.calibration, self.job.device, self.share.rank, self.share.world
        count = -(-len(data) // CALIBRATION_BATCH)
        first, last = (CALIBRATION_BATCH * (count * each // world) for each in (rank, rank + 1))
        found = batches(data, first, last, CALIBRATION_BATCH)
        if not fits(4 * len(data) * data.task.channels * math.prod(data.task.image_size), device):  # bytes of float32
            return found
        self.calibration = [batch._replace(images=batch.images.to(device)) for batch in found]
        return self.calibration

    def _progress(self, phase: PhaseRecipe, epoch: int, calibration: float | None, *, ends_epoch: bool) -> Progress:
        assert self.optimiser is not None
        done = sum(self.job.steps_of(i) for i in range(self.phase)) + self.step
        total = sum(self.job.steps_of(i) for i in range(len(self.recipe.phase)))
        return Progress(
            phase.name,
            epoch + 1,
            done,
            total,
            self._mean_losses(),
            self._seconds(),
            calibration,
            epochs=self.job.epochs_of(self.phase),
            ends_epoch=ends_epoch,
            lr=self.optimiser.param_groups[0]["lr"],
            stops=self.stops,
        )

    def _mean_losses(self) -> dict[str, float]:
        """Each term of the loss, over the steps of the current epoch."""
        steps = (self.step - 1) % self.job.per_epoch(self.phase) + 1
        return {name: value / steps for name, value in self.sums.items()}

    def _seconds(self) -> float:
        return self.seconds + time.monotonic() - self.began

    def save(self) -> None:
        """Write a checkpoint. It does not depend on the number of processes."""
        memory = {name: self.share.rows(tensor) if name in PER_IMAGE else tensor for name, tensor in self.memory.items()}
        if self.share.rank > 0:
            return
        state = {
            "phase": self.phase,
            "step": self.step,
            "model": self.model.state_dict(),
            "memory": memory,
            "sums": self.sums,
            "seconds": self._seconds(),
            "log": self.log,  # the file may have lines of steps that are repeated after a kill
        }
        if self.optimiser is not None and self.schedule is not None:
            state |= {"optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict()}
        write_checkpoint(self.job, state)
        self.saved = time.monotonic()

    def restore(self) -> None:
        """Continue from the folder's checkpoint, if there is one. The first process reads it for all."""
        state = load_checkpoint(self.job) if self.share.rank == 0 else None
        state, weights = self.share.told((state, None if state else self.model.state_dict()))
        self.model.load_state_dict(state["model"] if state else weights)
        if state is not None:
            self.phase, self.step, self.sums = state["phase"], state["step"], state["sums"]
            memory = {name: self.share.of(tensor) if name in PER_IMAGE else tensor for name, tensor in state["memory"].items()}
            self.memory = {name: tensor.to(self.job.device) for name, tensor in memory.items()}
            self.seconds, self.log = state["seconds"], state["log"]
            self.restored = {key: state[key] for key in ("optimiser", "schedule") if key in state}
        if self.share.rank == 0 and self.log:
            write_log(self.job.folder, self.log)
        elif self.share.rank == 0:
            remove_log(self.job.folder)


def calibration_accuracy(model: GlimpseModel[Any], data: Iterable[Batch], device: torch.device, share: Share | None = None) -> float:
    """Top-1 accuracy at the last step, in [0, 1]. share: if each process has a part of the data."""
    right = total = 0
    parts = Parts(CALIBRATION_BATCH)
    with inference(model):
        for batch in data:
            right += sum(parts.over(len(batch.labels), partial(_right, model, batch, device)))
            total += len(batch.labels)
    if share is not None:
        right, total = share.total(torch.tensor([right, total])).tolist()
    return right / total


def _right(model: GlimpseModel[Any], batch: Batch, device: torch.device, part: slice) -> int:
    """How many images of a part of the batch are classified correctly."""
    trace = rollout(model, batch.images[part].to(device), noise=Noise.of(0, batch.ids[part].to(device)))
    return int((trace.logits.argmax(1).cpu() == batch.labels[part]).sum())


def _step_seed(seed: int, phase: int, step: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{phase}/{step}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
