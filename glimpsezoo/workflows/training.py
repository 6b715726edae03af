"""From a model's name to a trained card in a folder."""

import platform
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glimpsezoo.cards import CONFIG, Card, CardConfig, CardTask, find_card, write_card
from glimpsezoo.data.loading import open_data
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.recipes import Recipe, find_recipe, recipe_names
from glimpsezoo.reports import write_card_readme
from glimpsezoo.resolve import Assignments, data_folder, data_spec
from glimpsezoo.settings import Settings
from glimpsezoo.specs import ModelSpec, load_string
from glimpsezoo.training import CHECKPOINT, LOG, Progress, TrainingJob, train


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What a user asks to be trained. model: MODEL, or a recipe's whole name MODEL.DATA.VARIANT."""

    model: str
    data: str
    data_dir: str | None = None
    sets: tuple[str, ...] = ()
    recipe_file: str | None = None
    seed: int | None = None
    device: torch.device = torch.device("cpu")
    workers: int = 0
    output: Path | None = None
    force: bool = False
    fresh: bool = False


@dataclass
class TrainingWork:
    """A training that is ready to run: take its `steps`, then `finish` it."""

    name: str
    spec: ModelSpec
    job: TrainingJob
    settings: Settings
    data: dict[str, Any]
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        phases = ", ".join(f"{p.name} ({p.epochs} epochs)" if p.epochs else f"{p.name} ({p.steps} steps)" for p in self.job.recipe.phase)
        resumed = "; goes on from its checkpoint" if (self.job.folder / CHECKPOINT).exists() else ""
        return f"{len(self.job.train)} training images, batches of {self.job.recipe.batch_size}: {phases}{resumed}"

    def steps(self) -> Iterator[Progress]:
        """Train to the end, yielding progress after every optimiser step."""
        for line in train(self.job):
            self.seconds = line.seconds
            yield line

    def finish(self) -> Card:
        """Write the card and remove the checkpoint."""
        job, recipe = self.job, self.job.recipe
        config = CardConfig(
            name=self.name,
            model=self.spec.name if not self.spec.prefix else self.name.rpartition("." + self.data["name"])[0],
            plugin=self.spec.provenance.distribution if self.spec.provenance else "?",
            config=self.settings.model_dump(mode="json"),
            task=CardTask.model_validate(vars(job.model.task)),
            data=self.data,
            weights=None,
            trained={
                "command": command_line(),
                "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
                "minutes": round(self.seconds / 60, 1),
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {job.device.type}",
                "torch": torch.__version__,
            },
        )
        card = write_card(job.folder, config, job.model)
        write_card_readme(card)
        (job.folder / CHECKPOINT).unlink(missing_ok=True)
        return card


def start_training(request: TrainingRequest) -> TrainingWork:
    """Resolve everything, and check that the output folder can be used, before the first step. Raises `GlimpseZooError`."""
    spec, name, data_name = _named(request)
    if spec.training_step is None:
        raise GlimpseZooError(f"{request.model} cannot be trained here: its plugin registers no training step")
    sets = Assignments.parse(request.sets, [request.model, spec.name])
    schema: type[Settings] = load_string(spec.config)
    sets.check_all_declared({request.model: schema.model_fields})
    recipe = _recipe(request, spec, name).override(sets.train | ({"seed": str(request.seed)} if request.seed is not None else {}))
    own = sets.of_model(request.model, schema.model_fields) | sets.of_model(spec.name, schema.model_fields)
    prefix = {spec.prefix_key: name.removeprefix(spec.name).removesuffix(f".{data_name}")} if spec.prefix else {}
    settings = schema.parse({**spec.defaults.get(data_name, {}), **recipe.settings, **prefix, **own}, owner=request.model)

    described, folder = data_spec(data_name), data_folder(request.data_dir)
    data_settings = {**recipe.data, **sets.data}
    training_data, calibration = (open_data(described, data_name, split, data_settings, folder) for split in ("train", "calibration"))
    torch.manual_seed(recipe.seed)
    kind: type[GlimpseModel[Any]] = load_string(spec.model)
    model = kind(settings, training_data.task)
    if recipe.start:
        _start_from(recipe.start, model)
    job = TrainingJob(
        model=model,
        training_step=load_string(spec.training_step),
        recipe=recipe,
        train=training_data,
        calibration=calibration,
        folder=_prepare(request, name),
        device=request.device,
        workers=request.workers,
    )
    return TrainingWork(name, spec, job, settings, {"name": data_name, "settings": data_settings})


def _named(request: TrainingRequest) -> tuple[ModelSpec, str, str]:
    """The model's spec, the card's name and the data set's name."""
    for spec in registry().all(ModelSpec):
        if request.model in recipe_names(spec):
            return spec, request.model, request.model.removeprefix(f"{spec.name}.").split(".")[0]
    spec = registry().find(ModelSpec, request.model)
    return spec, f"{request.model}.{request.data}", request.data


def _recipe(request: TrainingRequest, spec: ModelSpec, name: str) -> Recipe:
    if request.recipe_file is None:
        return find_recipe(spec, name)
    path = Path(request.recipe_file)
    if not path.is_file():
        raise GlimpseZooError(f"--recipe expects a TOML file, got {request.recipe_file!r}, which is none")
    return Recipe.from_toml(path.read_text(encoding="utf-8"), name=path.name)


def _start_from(name: str, model: GlimpseModel[Any]) -> None:
    card = find_card(name)
    if card is None:
        raise GlimpseZooError(f"the recipe starts from the card {name!r}, which is not here: train it first ('glimpsezoo train {name}')")
    card.load_into(model, changed={})


def _prepare(request: TrainingRequest, name: str) -> Path:
    """Make the output folder; refuse one that holds a finished card, unless told to overwrite it."""
    folder = request.output or Path("runs", "train", name.replace(":", "_").replace("/", "_"))
    if (folder / CONFIG).exists():
        if not (request.force or request.fresh):
            raise GlimpseZooError(f"{folder} holds a finished card: choose another --output, or --force to train it again")
        (folder / CONFIG).unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise GlimpseZooError(f"cannot write to the output folder {folder}: {error.strerror}") from None
    if request.fresh:
        for left in (CHECKPOINT, LOG):
            (folder / left).unlink(missing_ok=True)
    return folder


def command_line() -> str:
    """The command as a user would repeat it, paths by their base names."""
    words = [Path(word).name if "/" in word and Path(word).exists() else word for word in sys.argv[1:]]
    return shlex.join(["glimpsezoo", *words])
