"""Trains the Tiny ImageNet cards and times models on a GPU that is at hand for a quarter of an hour: one prepared script.

    python benchmarks/gpu.py prepare --data-dir data -o runs/arrays       # where the data are: writes them as plain arrays
    python benchmarks/gpu.py run runs/arrays -o runs/gpu --seconds 800    # on the GPU; needs no network and no `datasets`
    python benchmarks/gpu.py card runs/gpu/mgnet.tiny-imagenet -o runs/mgnet.tiny-imagenet
    glimpsezoo run runs/mgnet.tiny-imagenet --data-dir data               # measures it as any card

`run` trains mgnet.tiny-imagenet, then its feed-forward net, and then measures latency (gpu_latency.py). Where nothing is installed, give
it PYTHONPATH=.:plugins/glimpsezoo-mgnet:plugins/glimpsezoo-timm. A call stops training after --call-seconds; the same command again
continues. What it writes is in files below 16 MB: the checkpoint of a training that is not finished; or the card of one that is, in
pieces that `card` joins, with one row per test image in predictions.parquet.

The learning rate follows the schedule of the recipe over --epochs epochs. Without that option, the first call times some steps of both
trainings and plans as many epochs for each as four fifths of --seconds allow. Accuracy during the training is that on the calibration
split. The test split is measured once, after the training, and nothing depends on it.
"""

import itertools
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click
import torch
from arrays import NAME, open_arrays, prepare
from glimpsezoo_mgnet.plugin import register_models
from gpu_latency import latencies

from glimpsezoo.data.base import OnBadImage
from glimpsezoo.data.loading import batches_per_epoch
from glimpsezoo.data.memory import in_memory
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.environment import device_name
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
from glimpsezoo.evaluation.rows import StoredUnit, to_parquet
from glimpsezoo.files import write_whole
from glimpsezoo.reports.readme import write_card_readme
from glimpsezoo.specs import load_string
from glimpsezoo.training.folder import CHECKPOINT
from glimpsezoo.training.job import TrainingJob
from glimpsezoo.training.loop import Progress, train
from glimpsezoo.training.work import draw_training
from glimpsezoo.zoo.card_config import CONFIG, WEIGHTS, CardConfig, CardData, CardTask
from glimpsezoo.zoo.cards import LOG, Card, write_card
from glimpsezoo.zoo.names import Assignments
from glimpsezoo.zoo.recipes import read_recipe

SPEC = next(spec for spec in register_models() if spec.name == "mgnet")  # the registry knows only plugins that are installed
PLUGIN = "glimpsezoo-mgnet"
CARDS = ("mgnet.tiny-imagenet", "mgnet.tiny-imagenet.ff-net")
PLAN, PREDICTIONS, LATENCY = "plan.json", "predictions.parquet", "latency.json"
PIECE = 15_000_000  # bytes of a piece of a file
WARM, TIMED = 5, 40  # steps that are not timed, and steps that are
SHARE = 0.8  # of --seconds for the epochs: the rest is for compiling, calibrating, the test split and latency


def training_job(card: str, arrays: Path, folder: Path, sets: tuple[str, ...], device: torch.device) -> TrainingJob:
    """The training of a card's recipe on arrays. sets: `--set` texts, with the keys of `glimpsezoo train`. Raises `GlimpseZooError`."""
    given = Assignments.parse(sets, [], scopes=("data", "train"))
    recipe = read_recipe(SPEC, card).override(given.of("train"))
    recipe = recipe.model_copy(update={"data": {**recipe.data, **given.of("data")}})
    settings = load_string(SPEC.config).parse({**SPEC.defaults[NAME], **recipe.settings, **given.shared}, owner=card)
    training, calibration = (open_arrays(arrays, split, recipe.data) for split in ("train", "calibration"))
    torch.manual_seed(recipe.seed)
    return TrainingJob(
        model=load_string(SPEC.model)(settings, training.task),
        training_step=load_string(str(SPEC.training_step)),
        recipe=recipe,
        train=in_memory(training, device),
        calibration=calibration,
        folder=folder / card,
        device=device,
        workers=os.cpu_count() or 1 if device.type == "cuda" else 0,
        checkpoint_seconds=120,
    )


def with_epochs(job: TrainingJob, epochs: int) -> TrainingJob:
    return replace(job, recipe=job.recipe.override({"epochs": epochs}))


def steps_of(job: TrainingJob) -> Iterator[Progress]:
    """The steps of a training. What is compiled is compiled in the first two steps, for full batches; anything else runs as it is."""
    try:
        with closing(train(job)) as steps:
            for done, progress in enumerate(steps, start=1):
                if done == 2:
                    torch.compiler.set_stance("eager_on_recompile")  # compiling for the few batches of another size would cost a minute
                yield progress
    finally:
        torch.compiler.set_stance("default")


def seconds_per_epoch(job: TrainingJob) -> float:
    """The time of an epoch, from some steps whose outcome is thrown away."""
    before = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder, closing(steps_of(replace(job, folder=Path(folder)))) as steps:
        for _ in itertools.islice(steps, WARM):
            pass
        began = time.monotonic()
        for _ in itertools.islice(steps, TIMED):  # every step ends with reading its loss from the device
            pass
        seconds = time.monotonic() - began
    job.model.load_state_dict(before)
    return seconds / TIMED * batches_per_epoch(job.train, job.recipe.batch_size)


def planned_epochs(output: Path, jobs: list[TrainingJob], seconds: float, epochs: int | None) -> int:
    """The epochs of every training: as given, or as many as fit. The first call decides it for all. Raises `GlimpseZooError`."""
    file = output / PLAN
    if file.exists():
        plan = json.loads(file.read_text())
        if epochs not in {None, plan["epochs"]}:
            raise GlimpseZooError(f"expected the {plan['epochs']} epochs of the first call, got {epochs}: give another -o to start over")
        return plan["epochs"]
    times = {} if epochs else {job.folder.name: seconds_per_epoch(job) for job in jobs}
    plan = {"epochs": epochs or max(1, int(SHARE * seconds / sum(times.values()))), "seconds_per_epoch": times}
    print(f"plan: {plan}", flush=True)
    write_whole(file, (json.dumps(plan) + "\n").encode())
    return plan["epochs"]


def trained(job: TrainingJob, arrays: Path, deadline: float) -> bool:
    """Train until the deadline, by time.monotonic(). Returns whether the card is written."""
    checkpoint, seconds = job.folder / CHECKPOINT, 0.0
    if (job.folder / CONFIG).exists():
        return True
    join(checkpoint)
    with closing(steps_of(job)) as steps:
        for progress in steps:
            seconds = progress.seconds
            if progress.calibration is not None:
                print(f"{job.folder.name} epoch {progress.epoch}: calibration {progress.calibration:.2%}, {seconds:.0f} s", flush=True)
            if time.monotonic() > deadline and progress.done < progress.total:
                break
        else:
            finish(job, arrays, seconds)
            return True
    split(checkpoint)
    return False


def finish(job: TrainingJob, arrays: Path, seconds: float) -> None:
    """Write the card of a finished training, its weights in pieces, and what the model says of every test image."""
    model, recipe, card = job.model, job.recipe, job.folder.name
    test = open_arrays(arrays, "test", recipe.data)
    with torch.compiler.set_stance("force_eager"):
        found = run_job(Job(model, card, test), EvaluationConfig(device=job.device, workers=job.workers))
    config = CardConfig(
        name=card,
        model=SPEC.name,
        plugin=PLUGIN,
        config=model.config.model_dump(mode="json"),
        task=CardTask.model_validate(vars(model.task)),
        data=CardData(name=NAME, settings=recipe.data),
        weights=None,
        trained={
            "command": f"python benchmarks/gpu.py run runs/arrays -o runs/gpu --epochs {recipe.phase[0].epochs}",
            "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
            "minutes": round(seconds / 60, 1),
            "machine": f"{platform.machine()}, {device_name(job.device)}",
            "torch": torch.__version__,
        },
    )
    write_card(job.folder, config, model, keep_log=True)
    write_whole(job.folder / PREDICTIONS, to_parquet(StoredUnit(found.rows, found.measured[0])))
    split(job.folder / WEIGHTS)
    (job.folder / CHECKPOINT).unlink(missing_ok=True)
    print(f"{card}: {found.rows.hits[:, -1].mean():.2%} of {len(found.rows):,} test images, {seconds:.0f} s of training", flush=True)


def split(path: Path) -> None:
    """Replace a file by pieces of it, PATH.00, PATH.01, and so on."""
    content = path.read_bytes()
    for number, start in enumerate(range(0, len(content), PIECE)):
        path.with_name(f"{path.name}.{number:02}").write_bytes(content[start : start + PIECE])
    path.unlink()


def join(path: Path, into: Path | None = None) -> None:
    """The reverse of `split`, at another path if one is given; nothing if there are no pieces."""
    pieces = sorted(path.parent.glob(f"{path.name}.[0-9]*"))
    if pieces:
        write_whole(into or path, b"".join(piece.read_bytes() for piece in pieces))
        for piece in pieces if into is None else ():
            piece.unlink()


@click.group()
def main() -> None:
    """Trains the Tiny ImageNet cards and times models on a GPU."""


@main.command("prepare")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that holds the data, as for glimpsezoo run.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of arrays that is written.")
@click.option("--on-bad-image", type=click.Choice(["fail", "skip"]), default="fail", help="Whether a class may have no image.")
def prepare_command(data_dir: Path | None, output: Path, on_bad_image: OnBadImage) -> None:
    """Write Tiny ImageNet as plain arrays."""
    prepare(data_dir, output, on_bad_image=on_bad_image)


@main.command()
@click.argument("arrays", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the trainings and the latencies.")
@click.option("--seconds", type=float, default=800, show_default=True, help="Time for everything, in all calls together.")
@click.option("--call-seconds", type=float, help="Time of this call; by default all.")
@click.option("--epochs", type=int, help="Epochs of each training; by default as many as fit.")
@click.option("--set", "sets", multiple=True, help="KEY=VALUE of both models, data.KEY=VALUE or train.KEY=VALUE.")
@click.option("--compile/--no-compile", "compiled", default=torch.cuda.is_available(), help="Compile; by default on a GPU.")
def run(
    *, arrays: Path, output: Path, seconds: float, call_seconds: float | None, epochs: int | None, sets: tuple[str, ...], compiled: bool
) -> None:
    """Train both cards, then measure latency; the same command again continues."""
    deadline = time.monotonic() + (call_seconds or seconds)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True  # nearly all batches have the same size
    output.mkdir(parents=True, exist_ok=True)
    if not all((output / name / CONFIG).exists() for name in CARDS):
        jobs = [training_job(name, arrays, output, sets, device) for name in CARDS]
        for job in jobs if compiled else ():
            job.model.backbone.compile(dynamic=False)  # in place: the names of its weights stay
        planned = planned_epochs(output, jobs, seconds, epochs)
        if not all(trained(with_epochs(job, planned), arrays, deadline) for job in jobs):
            print("the time of this call is over: the same command continues", flush=True)
            return
    measure_latency(output / LATENCY, device, compiled=compiled)


def measure_latency(file: Path, device: torch.device, *, compiled: bool) -> None:
    """Write the latencies to a file that is complete after each row, unless it has all of them."""
    if file.exists() and json.loads(file.read_text())["complete"]:
        return
    torch.compiler.reset()  # what training compiled does not count towards the number of compilations of a function
    for found in latencies(device, compiled=compiled, short="GLIMPSEZOO_SHORT" in os.environ):
        write_whole(file, (json.dumps(found, indent=1) + "\n").encode())


@main.command()
@click.argument("trained_card", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the card that is written.")
def card(trained_card: Path, output: Path) -> None:
    """Join what `run` wrote of a finished training to a card."""
    output.mkdir(parents=True, exist_ok=True)
    join(trained_card / WEIGHTS, output / WEIGHTS)
    for name in (CONFIG, LOG):
        shutil.copy(trained_card / name, output / name)
    made = Card.read(output)
    made.weights()  # raises an error if a piece is missing
    draw_training(made)
    write_card_readme(made)


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except GlimpseZooError as error:
        sys.exit(f"gpu.py: {error}")
