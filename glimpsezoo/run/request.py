"""The request for a run, and its outcome."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from glimpsezoo.evaluation.measuring import EvaluationConfig
from glimpsezoo.measures.pairs import Comparison
from glimpsezoo.measures.result import Result


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What to measure; the fields are the options of `glimpsezoo run`."""

    models: tuple[str, ...]
    """Models and cards, by name or path."""
    data: str | None
    """None means the data of the cards."""
    device: torch.device
    """Where the models run."""
    data_dir: str | None = None
    """The folder of data sets; None means the default."""
    split: str = "test"
    """Of the data."""
    limit: int | None = None
    """Number of images; None means all."""
    batch_size: str = "auto"
    """A number of images, or 'auto'."""
    seed: int = 0
    """Of the models' noise."""
    workers: int = 0
    """Processes that decode images."""
    sets: tuple[str, ...] = ()
    """KEY=VALUE texts of `--set`."""
    precisions: tuple[str, ...] = ("float32",)
    """Every model is measured in each of them."""
    compile: bool = False
    """Whether the models are compiled."""
    checkpoint: str | None = None
    """Which weights; None means those of the cards."""
    measures: tuple[str, ...] | None = None
    """None means the default."""
    corrupted_dir: str | None = None
    """The folder of published corrupted images; None means that corruptions are computed."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """What happens if an image cannot be read."""
    output: Path | None = None
    """The folder for the results; None means runs/ID."""
    store: str | None = None
    """The folder or URL of finished units; None means runs/.units."""
    force: bool = False
    """Whether other results may be replaced."""
    fresh: bool = False
    """Whether stored units are ignored."""
    update_card: bool = False
    """Whether the results become the evidence of the cards."""
    engine: str = "auto"
    """Who does the work: auto, threads, processes:N or ray."""
    ray_address: str | None = None
    """Of the Ray cluster; None means the one that RAY_ADDRESS names, or this machine."""
    dry_run: bool = False
    """Whether the run is only planned: nothing is measured, written or deleted."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the user gave, by option, for command.toml."""
    words: tuple[str, ...] | None = None
    """The command that results record; None means that of this process."""

    @property
    def id(self) -> str:
        """A hash of the settings that determine the results."""
        kept = ("models", "data", "data_dir", "split", "limit", "seed", "sets", "checkpoint", "measures", "corrupted_dir")
        text = json.dumps({name: getattr(self, name) for name in (*kept, "precisions", "compile")})
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def config(self) -> EvaluationConfig:
        return EvaluationConfig(
            batch_size="auto" if self.batch_size == "auto" else int(self.batch_size),
            device=self.device,
            workers=self.workers,
            seed=self.seed,
            on_bad_image=self.on_bad_image,
            fresh=self.fresh,
        )


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run."""

    results: tuple[Result, ...]
    """One per model, in the order of the command."""
    comparison: Comparison | None
    """Paired tests, if several models were measured for accuracy."""
    summary: str
    """How much was measured, and where the results are."""
    written: tuple[Path, ...]
    """The result.json of every model."""
