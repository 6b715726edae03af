"""What a user asks a run to do, and what comes of it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from glimpsezoo.evaluation import EvaluationConfig
from glimpsezoo.records import Comparison, Result


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a user asks to be measured; the fields are the options of `glimpsezoo run`.

    data: None is the cards' own. measures: None is the default.
    """

    models: tuple[str, ...]
    data: str | None
    device: torch.device
    data_dir: str | None = None
    split: str = "test"
    limit: int | None = None
    batch_size: str = "auto"
    seed: int = 0
    workers: int = 0
    sets: tuple[str, ...] = ()
    checkpoint: str | None = None
    measures: tuple[str, ...] | None = None
    corrupted_dir: str | None = None
    on_bad_image: Literal["fail", "skip"] = "fail"
    output: Path | None = None
    force: bool = False
    fresh: bool = False
    update_card: bool = False

    @property
    def id(self) -> str:
        """A hash of the settings that decide what is measured."""
        kept = ("models", "data", "data_dir", "split", "limit", "seed", "sets", "checkpoint", "measures", "corrupted_dir")
        text = json.dumps({name: getattr(self, name) for name in kept})
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
class Outcome:
    """All results of a run, and the comparison where several models were measured for accuracy. summary: where they are."""

    results: tuple[Result, ...]
    comparison: Comparison | None
    summary: str
