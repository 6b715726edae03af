"""From a model's name to a trained card in a folder."""

import platform
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glimpsezoo.cards import (
    CONFIG,
    CURVE,
    LOG,
    UNKNOWN,
    Card,
    CardConfig,
    CardData,
    CardTask,
    file_name,
    find_card,
    misfits,
    training_log,
    write_card,
)
from glimpsezoo.data.loading import batches_per_epoch, open_data
from glimpsezoo.data.opening import told
from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.files import write_whole
from glimpsezoo.own_data import DEFAULT_DATA, own_settings
from glimpsezoo.pages.figures import training_picture
from glimpsezoo.pictures.svg import svg_file
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.recipes import Recipe, find_recipe, read_recipe, recipe_names
from glimpsezoo.reports import run_command, write_card_readme
from glimpsezoo.resolve import Assignments, data_folder, data_spec, public_name
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, ModelSpec, load_string
from glimpsezoo.training import CHECKPOINT, Progress, TrainingJob, checkpoint_of, claimed, train
from glimpsezoo.workflows.output import check_writable, command_line, published_word, unwritable


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What a user asks to be trained. model: MODEL, or a recipe's whole name MODEL.DATA[.VARIANT], which is to agree with `data`."""

    model: str
    data: str | None
    device: torch.device
    data_dir: str | None = None
    sets: tuple[str, ...] = ()
    recipe_file: str | None = None
    seed: int | None = None
    workers: int = 0
    output: Path | None = None
    force: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Named:
    """What is trained on what, by name. card: MODEL.DATA[.VARIANT]. model: of a prefix spec with its rest, `timm:resnet18`."""

    spec: ModelSpec
    card: str
    model: str
    data: str


@dataclass
class TrainingWork:
    """A training that is ready to run: take its `steps`, then `finish` it. start: the card whose weights it begins with, if any."""

    named: Named
    job: TrainingJob
    settings: Settings
    data: CardData
    data_dir: str | None
    start: Card | None = None
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        lengths = [(phase.epochs, "epoch") if phase.epochs else (phase.steps, "step") for phase in self.job.recipe.phase]
        texts = [f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in lengths]
        phases = ", ".join(f"{phase.name} ({text})" for phase, text in zip(self.job.recipe.phase, texts, strict=True))
        resumed = "; goes on from its checkpoint" if (self.job.folder / CHECKPOINT).exists() else ""
        began = f"; begins with the weights of {self.start.name} ({self.start.origin or self.start.folder})" if self.start else ""
        images = f"{len(self.job.train):,} training images, batches of {self.job.recipe.batch_size}"
        return f"{self.named.card}: {images}: {phases}{began}{resumed}"

    @property
    def notes(self) -> list[str]:
        """What was inferred of the data."""
        return [line] if (line := told(self.job.train)) else []

    def steps(self) -> Generator[Progress]:
        """Train to the end, yielding progress after every optimiser step. Closing it saves a checkpoint."""
        with closing(train(self.job)) as lines:
            for line in lines:
                self.seconds = line.seconds
                yield line

    def finish(self) -> Card:
        """Write the card and remove the checkpoint."""
        job, provenance = self.job, self.named.spec.provenance
        assert provenance is not None
        config = CardConfig(
            name=self.named.card,
            model=self.named.model,
            plugin=provenance.distribution,
            config=self.settings.model_dump(mode="json"),
            task=CardTask.model_validate(vars(job.model.task)),
            data=self.data,
            weights=None,
            trained={
                "command": command_line(),
                **self._recipe(),
                "minutes": round(self.seconds / 60, 1),
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {job.device.type}",
                "torch": torch.__version__,
            },
        )
        with claimed(job.folder):
            try:
                card = write_card(job.folder, config, job.model, keep_log=True)
                draw_training(card)
                write_card_readme(card)
                (job.folder / CHECKPOINT).unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(job.folder, error) from None
        return card

    def _recipe(self) -> dict[str, Any]:
        """The recipe as the card tells it, and which weights the training began with."""
        recipe = self.job.recipe.model_dump(mode="json", exclude_defaults=True)
        if self.start is None:
            return {"recipe": recipe}
        recipe["start"] = published_word(recipe["start"])
        return {"recipe": recipe, "start": {"card": self.start.name, "sha256": self.job.start}}

    def run_command(self, card: Card) -> str:
        """What measures the card that came of it, from here."""
        typed = self.named.data if self.named.data != self.data.name else None
        return run_command(card, str(card.folder), data=typed, data_dir=self.data_dir)


def draw_training(card: Card) -> None:
    """Draw the card's training log beside it, where there is one."""
    picture = training_picture(card.name, training_log(card.folder))
    if picture is not None:
        write_whole(card.folder / CURVE, svg_file(picture).encode())


def start_training(request: TrainingRequest) -> TrainingWork:
    """Resolve everything, and check that the output folder can be used, before the first step. Raises `GlimpseZooError`."""
    start_from = _chosen_start(request)
    named = _named(request, start_from)
    spec, described, folder = named.spec, data_spec(named.data), request.output or _usual_output(named.card)
    _check_output(request, folder)
    if spec.training_step is None:
        raise GlimpseZooError(f"{named.model} cannot be trained here, for its plugin registers no training step: import a card instead")
    schema: type[Settings] = load_string(spec.config)
    names = [request.model, named.model]
    sets = Assignments.parse(request.sets, names, scopes=("data", "train"))
    sets.check_all_declared({named.model: schema.model_fields})
    recipe = _recipe(request, named).override(sets.of("train") | ({"seed": str(request.seed)} if request.seed is not None else {}))
    prefix = {spec.prefix_key: named.model.removeprefix(spec.name)} if spec.prefix else {}
    own = sets.of_model(names, schema.model_fields)
    before, data_before = _before(start_from, named)
    settings = schema.parse({**spec.defaults.get(named.data, {}), **before, **recipe.settings, **prefix, **own}, owner=named.model)

    data = _data(named.data, described, {**data_before, **recipe.data, **sets.of("data")})
    data_dir = data_folder(request.data_dir)
    training_data, calibration = (
        open_data(described, named.data, split, data.settings, data_dir, fresh=request.fresh) for split in ("train", "calibration")
    )
    if batches_per_epoch(training_data, recipe.batch_size) == 0 or len(calibration) == 0:
        raise GlimpseZooError(
            f"expected two images of {data.name} to train on and one to calibrate with, got {len(training_data)} and {len(calibration)}: "
            "add images, or choose other data"
        )
    torch.manual_seed(recipe.seed)
    kind: type[GlimpseModel[Any]] = load_string(spec.model)
    model = kind(settings, training_data.task)
    start = _start_from(recipe.start, model) if recipe.start else None
    job = TrainingJob(
        model=model,
        training_step=load_string(spec.training_step),
        recipe=recipe,
        train=training_data,
        calibration=calibration,
        folder=folder,
        device=request.device,
        workers=request.workers,
        start=start.config.weights.sha256 if start and start.config.weights else None,
    )
    _prepare(request, job)
    return TrainingWork(named, job, settings, data, request.data_dir, start)


def named_by_recipe(name: str) -> Named | None:
    """Who is meant by a recipe's whole name, MODEL.DATA[.VARIANT]; None if no plugin has such a recipe."""
    for spec in registry().all(ModelSpec):
        if file_name(name) in recipe_names(spec):
            model, data = _split(name, spec)
            return Named(spec, model + name[len(model) :], model, data)
    return None


def _named(request: TrainingRequest, start: Card | None) -> Named:
    """Who is meant by MODEL with --data, or by a recipe's whole name. The data are those of the card that was named to start from."""
    named = named_by_recipe(request.model)
    if named is None:
        own = start.config.data.name if start and start.config.data.name != UNKNOWN else DEFAULT_DATA
        spec, data = registry().find(ModelSpec, request.model), request.data or own
        return Named(spec, f"{request.model}.{public_name(data)}", request.model, data)
    if request.data not in {None, named.data}:
        raise GlimpseZooError(
            f"expected --data {named.data}, which the recipe {request.model!r} is for, got {request.data!r}: leave it out"
        )
    return named


def _chosen_start(request: TrainingRequest) -> Card | None:
    """The card that the user, and not a recipe of the zoo, chose to start from."""
    start = Assignments.parse(request.sets, [request.model], scopes=("data", "train")).of("train").get("start")
    if start is None and request.recipe_file is not None:
        named = named_by_recipe(request.model)
        spec, model = (named.spec, named.model) if named else (registry().find(ModelSpec, request.model), request.model)
        start = _read_recipe(request.recipe_file, spec, model).start
    return _find_start(start) if start else None


def _before(start: Card | None, named: Named) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a training has of the card that was chosen to start from: settings of the same model, and those of the data."""
    if start is None:
        return {}, {}
    own = start.config
    return (own.config if own.model == named.model else {}), own_settings(own, named.data)


def _split(recipe: str, spec: ModelSpec) -> tuple[str, str]:
    """The model and the data set in MODEL.DATA[.VARIANT].

    A prefix spec's models may have dots in their names, so the name of a data set ends them; and their recipes' files have none of the
    colons that their names have, but are as long.
    """
    if not spec.prefix:
        return spec.name, recipe.removeprefix(f"{spec.name}.").split(".")[0]
    parts, known = recipe.split("."), {data.name for data in registry().all(DatasetSpec)}
    place = next((place for place, part in enumerate(parts) if part in known), len(parts) - 1)
    return spec.name + ".".join(parts[:place])[len(spec.name) :], parts[place]


def _recipe(request: TrainingRequest, named: Named) -> Recipe:
    if request.recipe_file is None:
        return find_recipe(named.spec, named.card)
    return _read_recipe(request.recipe_file, named.spec, named.model)


def _read_recipe(file: str, spec: ModelSpec, model: str) -> Recipe:
    """A TOML file of the user's, or another recipe of the model. Raises `GlimpseZooError`."""
    path, known = Path(file), recipe_names(spec)
    if file in known and not path.is_file():
        return read_recipe(spec, file)
    try:
        return Recipe.from_toml(path.read_text(encoding="utf-8"), name=path.name)
    except (OSError, UnicodeDecodeError) as error:
        hint = did_you_mean(file, known)
        raise GlimpseZooError(
            f"--recipe expects a TOML file, or a recipe of {model}, got {file!r} ({one_line(error):.100}): {hint}"
        ) from None


def _data(name: str, described: DatasetSpec, given: dict[str, Any]) -> CardData:
    """The data set with the settings that were given, as values where they were text."""
    schema: type[Settings] = load_string(described.config)
    return CardData(name=public_name(name), settings=schema.parse(given, owner="data").model_dump(mode="json", include=set(given)))


def _start_from(name: str, model: GlimpseModel[Any]) -> Card:
    """Load the card's weights into the networks that both have, and return it. The model's others begin anew.

    So MGNet may begin with the backbone of a plain classifier.
    """
    card, own = _find_start(name).located(), model.state_dict()
    shared = {key: tensor for key, tensor in card.weights().items() if key in own}
    problems = misfits(shared, {key: own[key] for key in shared}) if shared else ["they have no tensor in common"]
    if problems:
        raise GlimpseZooError(
            f"the recipe starts from the card {name!r}, which does not fit: {problems[0]}; name another card, or settings"
        )
    model.load_state_dict(shared, strict=False)
    return card


def _find_start(name: str) -> Card:
    """The card at that path; else one that `train` wrote here, which goes before one of that name in the zoo."""
    card = find_card(name) if (Path(name) / CONFIG).is_file() else find_card(str(_usual_output(name))) or find_card(name)
    if card is None:
        raise GlimpseZooError(f"the recipe starts from the card {name!r}, which is not here: train it first ('glimpsezoo train {name}')")
    return card


def _usual_output(card: str) -> Path:
    return Path("runs", "train", file_name(card))


def _check_output(request: TrainingRequest, folder: Path) -> None:
    """Refuse a folder that cannot be written, and one that holds a finished card, unless told to train it again."""
    if (folder / CONFIG).exists() and not (request.force or request.fresh):
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force to train it again"
        )
    check_writable(folder)


def _prepare(request: TrainingRequest, job: TrainingJob) -> None:
    """Make the folder, in which a training under way is no card, after a look at the checkpoint that it may hold."""
    if not request.fresh:
        checkpoint_of(job)
    with claimed(job.folder):
        try:
            for old in (CONFIG, *((CHECKPOINT, LOG, CURVE) if request.fresh else ())):
                (job.folder / old).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(job.folder, error) from None
