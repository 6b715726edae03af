"""Training by recipe: phase after phase, logged, checkpointed and exactly resumable.

Every step is a function of the weights, the recipe and its own number: batches, augmentation and all noise are derived from (seed,
phase, step), and each step seeds torch by itself. So a training that was stopped anywhere ends with the weights of one that was not.
"""

import contextlib
import fnmatch
import hashlib
import io
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from glimpsezoo.cards import LOG, training_log
from glimpsezoo.data.base import Batch, ImageData
from glimpsezoo.data.loading import batches, batches_per_epoch, training_batches
from glimpsezoo.driver import rollout
from glimpsezoo.environment import channels_last
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.files import write_whole
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.recipes import PhaseRecipe, Recipe

TrainingStep = Callable[[GlimpseModel[Any], Tensor, Tensor, "TrainingPhase"], dict[str, Tensor]]
CHECKPOINT, LOCK = "checkpoint.pt", ".training.lock"


@dataclass(frozen=True, kw_only=True)
class TrainingPhase:
    """What a training step knows beside its batch.

    name, options: of the recipe's phase. step: 0-based in this phase of `steps`. epoch: 0-based. noise: one source an image, fresh in
    every step. memory: tensors to keep from step to step (a moving baseline); saved in checkpoints.
    """

    name: str
    options: Mapping[str, Any]
    step: int
    steps: int
    epoch: int
    noise: Noise
    memory: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training: what to train on what, and how.

    folder: where checkpoint and log are kept. start: sha256 of the weights file that the model begins with, if any.
    """

    model: GlimpseModel[Any]
    training_step: TrainingStep
    recipe: Recipe
    train: ImageData
    calibration: ImageData
    folder: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    checkpoint_seconds: float = 30.0
    start: str | None = None


@dataclass(frozen=True)
class Progress:
    """A line of progress. done, total: optimiser steps over all phases. losses: means over the epoch so far.

    calibration: top-1 accuracy on the calibration split after the epoch, where it was measured. seconds: of training, all sittings.
    """

    phase: str
    epoch: int
    done: int
    total: int
    losses: dict[str, float]
    seconds: float
    calibration: float | None = None


def train(job: TrainingJob) -> Generator[Progress]:
    """Train, yielding progress after every step; the model holds the final weights when the iterator ends.

    Starts from the folder's checkpoint if there is one of the same job. Stopping it between two steps (closing the iterator) writes a
    checkpoint first. What stops it within a step (the last of an epoch ends when that is logged) leaves the last checkpoint as it is: a
    step half taken cannot be gone on from. Raises `GlimpseZooError` if the folder holds a checkpoint of another job, if another training
    writes to it or nothing can be written, or if a loss is not finite.
    """
    with claimed(job.folder):
        run = _TrainingRun(job)
        run.restore()
        try:
            for index in range(run.phase, len(job.recipe.phase)):
                yield from run.train_phase(index)
        finally:
            if run.whole:
                run.save()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep every other training out of the folder. Raises `GlimpseZooError` at once if one is in it."""
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise GlimpseZooError(f"another training writes to this folder: choose another --output than {str(folder)!r}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # whoever finds it unlocked may have it
            (folder / LOCK).unlink(missing_ok=True)  # while it is ours, or it might be another's
        lock.release()


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Say in one line that the folder cannot be written."""
    try:
        yield
    except OSError as error:
        why = error.strerror or one_line(error)
        raise GlimpseZooError(
            f"expected an output folder that can be written, got {str(folder)!r} ({why}): make room, and the same command goes on from its "
            "last checkpoint; or choose another --output"
        ) from None


def job_digest(job: TrainingJob) -> str:
    """What decides the outcome of a job, hashed: recipe, model settings, data, and the weights that it begins with."""
    parts = [job.recipe.model_dump(), job.model.config.model_dump(), type(job.model).__qualname__, job.train.info.fingerprint]
    text = json.dumps([*parts, *([job.start] if job.start else [])], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class _TrainingRun:
    """The state of a training under way."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.recipe = job.recipe
        self.model = job.model.to(job.device)
        channels_last(self.model)
        self.phase, self.step = 0, 0  # the phase under way and its next step
        self.whole = True  # false within a step, which for an epoch's last includes its line in the log
        self.optimiser: torch.optim.Optimizer | None = None
        self.schedule: torch.optim.lr_scheduler.LRScheduler | None = None
        self.memory: dict[str, Tensor] = {}
        self.sums: dict[str, float] = {}  # losses of the epoch so far
        self.began = self.saved = time.monotonic()
        self.seconds = 0.0  # of earlier sittings
        self.restored: dict[str, Any] = {}

    def steps_of(self, index: int) -> int:
        phase = self.recipe.phase[index]
        return phase.steps if phase.steps is not None else self.per_epoch * int(phase.epochs or 0)

    def epochs_of(self, index: int) -> int:
        """Of a phase, one that is cut short counted as a whole one."""
        return -(-self.steps_of(index) // self.per_epoch)

    @property
    def per_epoch(self) -> int:
        return batches_per_epoch(self.job.train, self.recipe.batch_size)

    def train_phase(self, index: int) -> Iterator[Progress]:
        phase = self.recipe.phase[index]
        self._begin(index, phase)
        total = self.steps_of(index)
        # For the data, epochs count over all phases: no phase sees the placements of another again, and noise that grows over epochs
        # (data.noise_epochs) grows on. Once each phase counted from 10,000 times its number, so that the noise of a second phase was full
        # from the start; the older cards of several phases were trained so. A first phase draws what it drew.
        before = sum(self.epochs_of(earlier) for earlier in range(index))
        while self.step < total:
            epoch, first = divmod(self.step, self.per_epoch)
            if first == 0:
                self.sums = {}
            source = training_batches(
                self.job.train,
                before + epoch,
                self.recipe.seed,
                self.recipe.batch_size,
                self.job.workers,
                first_batch=first,
                augment=phase.augment,
            )
            for batch in source:
                self.whole = False
                self._step(phase, batch, epoch, total)
                last = self.step % self.per_epoch == 0 or self.step == total
                calibration = self._end_epoch(phase, epoch, last=self.step == total) if last else None
                self.whole = True
                yield self._progress(phase, epoch, calibration)
                if self.step == total or time.monotonic() - self.saved > self.job.checkpoint_seconds:
                    self.save()
                if last:
                    break
        self.phase, self.step, self.optimiser = index + 1, 0, None

    def _begin(self, index: int, phase: PhaseRecipe) -> None:
        """Set what is trainable, and the optimiser and schedule (as the checkpoint left them, where there is one)."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in phase.trainable))
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        if not trainable:
            raise GlimpseZooError(f"phase {phase.name!r} trains nothing: no parameter matches {', '.join(phase.trainable)}")
        self.phase = index
        self.optimiser = _optimiser(phase, trainable)
        self.schedule = _schedule(phase, self.optimiser, self.steps_of(index))
        if self.restored:
            self.optimiser.load_state_dict(self.restored["optimiser"])
            self.schedule.load_state_dict(self.restored["schedule"])
            self.restored = {}

    def _step(self, phase: PhaseRecipe, batch: Batch, epoch: int, total: int) -> None:
        assert self.optimiser is not None
        assert self.schedule is not None
        seed = _mixed(self.recipe.seed, self.phase, self.step)
        torch.manual_seed(seed)
        device = self.job.device
        images, labels, ids = (t.to(device, non_blocking=True) for t in (batch.images, batch.labels, batch.ids))
        context = TrainingPhase(
            name=phase.name,
            options=phase.options,
            step=self.step,
            steps=total,
            epoch=epoch,
            noise=Noise.of(seed, ids),
            memory=self.memory,
        )
        self._hold_fixed(phase)
        with _mixed_precision(self.recipe.precision, device):
            losses = self.job.training_step(self.model, images, labels, context)
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            terms = ", ".join(f"{name} {value.item():.3g}" for name, value in losses.items())
            raise GlimpseZooError(f"the loss is not finite in step {self.step} of phase {phase.name!r} ({terms}): lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if phase.clip:
            nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], phase.clip)
        self.optimiser.step()
        self.schedule.step()
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        self.step += 1

    def _hold_fixed(self, phase: PhaseRecipe) -> None:
        """Training mode, but modules without a trainable parameter of their own keep their statistics (BatchNorm) too."""
        self.model.train()
        if phase.trainable != ("*",):
            for module in self.model.modules():
                own = list(module.parameters(recurse=False))
                if own and not any(p.requires_grad for p in own):
                    module.eval()

    def _end_epoch(self, phase: PhaseRecipe, epoch: int, *, last: bool) -> float | None:
        """Log the epoch; measure calibration accuracy about thirty times a phase and at its end."""
        calibration = None
        if last or (epoch + 1) % max(1, self.epochs_of(self.phase) // 30) == 0:
            calibration = calibration_accuracy(self.model, self.job.calibration, self.job.device)
        steps = (self.step - 1) % self.per_epoch + 1
        assert self.optimiser is not None
        line = {
            "phase": phase.name,
            "epoch": epoch + 1,
            "step": self.step,
            "lr": self.optimiser.param_groups[0]["lr"],
            "losses": {name: value / steps for name, value in self.sums.items()},
            "calibration_top1": calibration,
        }
        with _written(self.job.folder), (self.job.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"phase_index": self.phase, **line}) + "\n")
        return calibration

    def _progress(self, phase: PhaseRecipe, epoch: int, calibration: float | None) -> Progress:
        done = sum(self.steps_of(i) for i in range(self.phase)) + self.step
        total = sum(self.steps_of(i) for i in range(len(self.recipe.phase)))
        steps = (self.step - 1) % self.per_epoch + 1
        losses = {name: value / steps for name, value in self.sums.items()}
        return Progress(phase.name, epoch + 1, done, total, losses, self._seconds(), calibration)

    def _seconds(self) -> float:
        return self.seconds + time.monotonic() - self.began

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "job": job_digest(self.job),
            "phase": self.phase,
            "step": self.step,
            "model": self.model.state_dict(),
            "memory": self.memory,
            "sums": self.sums,
            "seconds": self._seconds(),
        }
        if self.optimiser is not None and self.schedule is not None:
            state |= {"optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict()}
        content = io.BytesIO()  # torch raises a RuntimeError for a disk that is full
        torch.save(state, content)
        with _written(self.job.folder):
            write_whole(self.job.folder / CHECKPOINT, content.getvalue())
        self.saved = time.monotonic()

    def restore(self) -> None:
        state = checkpoint_of(self.job)
        if state is None:
            with _written(self.job.folder):  # of a training that is finished, or died before its first checkpoint
                (self.job.folder / LOG).unlink(missing_ok=True)
            return
        self.model.load_state_dict(state["model"])
        self.phase, self.step, self.memory, self.sums = state["phase"], state["step"], state["memory"], state["sums"]
        self.seconds = state["seconds"]
        self.restored = {key: state[key] for key in ("optimiser", "schedule") if key in state}
        _forget_later_lines(self.job.folder, self.phase, self.step)


def checkpoint_of(job: TrainingJob) -> dict[str, Any] | None:
    """What a stopped training of this job left in its folder; None if nothing.

    Raises `GlimpseZooError` for a checkpoint that is damaged, and for one of another job.
    """
    path = job.folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=job.device, weights_only=True)
        digest = state["job"]
    except Exception as error:  # a damaged file makes torch.load raise anything
        raise GlimpseZooError(f"expected a checkpoint in {path.parent.name}, got one that cannot be read: start anew by --fresh") from error
    if digest != job_digest(job):
        raise GlimpseZooError(f"{path.parent.name} holds the checkpoint of another training: choose another --output, or --fresh")
    return state


def _forget_later_lines(folder: Path, phase: int, step: int) -> None:
    """Drop log lines of steps that the checkpoint does not know: they will be taken again. So does a line that is torn."""
    if (folder / LOG).exists():
        kept = [line for line in training_log(folder) if (line["phase_index"], line["step"]) <= (phase, step)]
        with _written(folder):
            write_whole(folder / LOG, "".join(json.dumps(line) + "\n" for line in kept).encode())


@torch.no_grad()
def calibration_accuracy(model: GlimpseModel[Any], data: ImageData, device: torch.device, batch_size: int = 256) -> float:
    """Top-1 accuracy at the last step, in [0, 1]."""
    model.eval()
    right = 0
    for batch in batches(data, 0, len(data), batch_size, 0):
        trace = rollout(model, batch.images.to(device), noise=Noise.of(0, batch.ids.to(device)))
        right += int((trace.logits.argmax(1).cpu() == batch.labels).sum())
    return right / len(data)


def _optimiser(phase: PhaseRecipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Weight decay spares biases and the gains of norms, as is usual."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": phase.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if phase.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=phase.lr, momentum=phase.momentum)
    kind = torch.optim.Adam if phase.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=phase.lr)


def _schedule(phase: PhaseRecipe, optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    kinds = torch.optim.lr_scheduler
    if phase.schedule == "one-cycle":
        return kinds.OneCycleLR(optimiser, max_lr=phase.lr, total_steps=max(steps, 2))
    if phase.schedule == "cosine":
        return kinds.CosineAnnealingLR(optimiser, T_max=steps)
    if phase.schedule == "step":
        return kinds.MultiStepLR(optimiser, [int(share * steps) for share in phase.milestones], gamma=phase.decay)
    return kinds.ConstantLR(optimiser, factor=1.0)


def _mixed(seed: int, phase: int, step: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{phase}/{step}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def _mixed_precision(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 needs no loss scaling, whose state would have to be resumed as well."""
    mixed = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16) if mixed else contextlib.nullcontext()
