"""What the messages of the commands advise, done: see `test_advice`."""

import shlex
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from command_line import TINY, make_card, photo_card, rewrite
from PIL import Image

from glimpsezoo.specs import Task
from glimpsezoo.training.folder import locked
from glimpsezoo.training.prepare import prepare_training
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.zoo.cards import find_card


@dataclass(frozen=True)
class Case:
    """words: what is answered by the message. then: what the advice leads to, one command after the other, each a success.

    {quoted}: the command that the message quotes. before: changes the working folder first. status: of the first command.
    """

    words: str
    then: tuple[str, ...]
    before: Callable[[ExitStack], object] = lambda stack: None
    status: int = 2


MOBILE = "timm:mobilenetv3_small_050"
PHOTOS = "--data folder:photos --set data.size=48"
UNTRAINED = "--checkpoint none"
FLOPS = "--measure flops --limit 2"
ATTACKED = "--limit 2 --set masking.images=1 --set pgd.steps=1"


def _publish(stack: ExitStack, *, short: bool = False) -> None:
    """fog, as somebody else made it of the photographs."""
    for severity in range(1, 6):
        for name in ("cat", "dog"):
            folder = Path("published/fog", str(severity), name)
            folder.mkdir(parents=True)
            for number in range(1 if short and severity == 2 else 2):
                Image.new("RGB", (48, 48), (9 * severity,) * 3).save(folder / f"{number}.png")


def _stopped_training(stack: ExitStack) -> None:
    """A checkpoint that a training of other settings left in `mine`."""
    request = TrainingRequest(
        model="mgnet",
        data="digits",
        device=torch.device("cpu"),
        sets=("train.steps=3", *TINY[1::2]),
        recipe_file="tiny.toml",
        output=Path("mine"),
    )
    steps = prepare_training(request).steps()
    next(steps)
    steps.close()


def _configs(stack: ExitStack) -> None:
    """A file of options, and one with a value of another kind."""
    Path("mine.toml").write_text("models = ['cnn4']\nlimit = 2\nmeasure = 'flops'\n")
    Path("wrong.toml").write_text("models = 'cnn4'\n")


def _on_terminal(stack: ExitStack) -> None:
    stack.enter_context(pytest.MonkeyPatch.context()).setattr("glimpsezoo.commands.options.on_terminal", lambda: True)


def _damaged(stack: ExitStack) -> None:
    Path("mine").mkdir()
    Path("mine/checkpoint.pt").write_bytes(b"half a checkpoint")


def _weights(stack: ExitStack) -> None:
    import timm

    model = timm.create_model("mobilenetv3_small_050", num_classes=10, in_chans=1)
    torch.save(model.state_dict(), "weights.pth")


def change_card(called: str, /, **changes: object) -> Callable[[ExitStack], None]:
    def change(stack: ExitStack) -> None:
        card = find_card(called)
        assert card is not None
        rewrite(card, **changes)

    return change


def _other_weights(stack: ExitStack) -> None:
    result, rows = (Path("zoo_cards/small", name).read_bytes() for name in ("result.json", "rows.parquet"))
    photo_card(Path("zoo_cards/small"), seed=1, classes="cat dog")
    Path("zoo_cards/small/result.json").write_bytes(result)
    Path("zoo_cards/small/rows.parquet").write_bytes(rows)


def _trained(stack: ExitStack) -> None:
    """A card in the folder where `train` puts it."""
    task = Task((48, 48), 3, ("cat", "dog"))
    make_card(Path("runs/train/mgnet.folder_photos"), "mgnet", data="folder:photos", task=task, data_settings={"size": 48})


def _no_cards(stack: ExitStack) -> None:
    shutil.rmtree("zoo_cards")
    Path("zoo_cards").mkdir()


def _taken(stack: ExitStack) -> None:
    Path("taken/cnn4").mkdir(parents=True)
    Path("taken/cnn4/result.json").write_text('{"run": {"id": "another"}}')


def _one_class_small(stack: ExitStack) -> None:
    for number in range(3, 20):
        Path(f"photos/cat/{number}.png").unlink()


def _one_class_empty(stack: ExitStack) -> None:
    Path("photos/bird").mkdir()


def _cut_images(stack: ExitStack) -> None:
    """Most images of a class are cut."""
    for path in sorted(Path("photos").glob("**/cat/*.png"))[1:]:
        path.write_bytes(path.read_bytes()[:60])


def _mixed_recipe(stack: ExitStack) -> None:
    """A recipe with a phase in epochs and one in steps."""
    phase = '[[phase]]\nname = "a"\noptimiser = "sgd"\nlr = 0.1\n'
    Path("mixed.toml").write_text(f"batch_size = 8\n{phase}epochs = 1\n{phase}steps = 1\n")


def _same_weights(stack: ExitStack) -> None:
    """A recipe without phases, and the same with one."""
    text = 'batch_size = 64\nstart = "cnn4.digits"\n'
    Path("same.toml").write_text(text)
    Path("phases.toml").write_text(f'{text}[[phase]]\nname = "a"\noptimiser = "sgd"\nlr = 0.1\nsteps = 1\n')


def _grid(stack: ExitStack) -> None:
    """A grid of four cells, and a file without models."""
    Path("grid.toml").write_text('models = ["cnn4"]\nseeds = [0, 1, 2, 3]\nmeasure = "flops"\nlimit = 2\n')
    Path("empty.toml").write_text("limit = 2\n")


TRAIN = f"train mgnet {PHOTOS} --recipe tiny.toml --set train.steps=1 {shlex.join(TINY)}"
ON_DIGITS = f"train mgnet --recipe tiny.toml --set train.steps=1 {shlex.join(TINY)}"
OF_COMMANDS = {
    "--shard expects K/N": Case("run --grid grid.toml --shard 9/4", ("run --grid grid.toml --shard 4/4",), _grid),
    "--shard expects --grid FILE": Case(
        f"run cnn4 --shard 1/2 {FLOPS}", ("run --grid grid.toml --shard 1/2 --dry-run", f"run cnn4 {FLOPS}"), _grid
    ),
    "--grid expects models, got none": Case("run --grid empty.toml", ("run cnn4 --grid empty.toml --dry-run",), _grid),
    "--grid expects no --update-card": Case("run --grid grid.toml --update-card", ("run small --update-card --measure accuracy",), _grid),
    "or measure it untrained by --checkpoint none": Case(
        f"run cnn4 {FLOPS}", (f"run cnn4 {FLOPS} {UNTRAINED}",), change_card("cnn4.digits", weights=None)
    ),
    "which is not in its folder": Case(
        f"run cnn4 {FLOPS}",
        ("{quoted} --set train.steps=1", f"run new {FLOPS}"),
        lambda stack: Path("zoo_cards/cnn4.digits/model.safetensors").unlink(),
    ),
    "contradicts the trained card": Case(f"run mgnet {FLOPS} --set biases=true", (f"run mgnet {FLOPS} --set biases=true {UNTRAINED}",)),
    "see '{} --help'": Case("run --limits 3", ("run --help",)),
    "-o expects --paper": Case("compare small -o x.md", ("compare small --format csv",)),
    "--paper writes tables": Case("compare --paper ranzato-2014 --format latex", ("compare --paper ranzato-2014 --format csv",)),
    "train one ('glimpsezoo train mgnet --data digits')": Case("list cards", ("{quoted} --set train.steps=1",), _no_cards, status=0),
    "choose another ('glimpsezoo list policies')": Case(
        f"run ranzato {FLOPS} {UNTRAINED} --set policy=coarse-to-fine",
        ("{quoted}", f"run ranzato {FLOPS} {UNTRAINED} --set policy=saliency"),
    ),
    "see 'glimpsezoo list recipes'": Case("list", ("{quoted}",), _on_terminal, status=0),
    "name images by --index or --image": Case("trace cnn4 3", ("trace cnn4 --index 3", "trace cnn4 --image photos/cat/0.png -o b.png")),
    "--index expects at most": Case("trace cnn4 --index 0-1000", ("trace cnn4 --index 0-2",)),
    "--index expects numbers from 0": Case("trace cnn4 --index x", ("trace cnn4 --index 3,7 4-5",)),
    "corruptions expect images of 32 px or more": Case(
        f"trace {MOBILE} --data folder:photos {UNTRAINED} --under fog --set data.size=16",
        (f"trace {MOBILE} --data folder:photos {UNTRAINED} --under fog --set data.size=32",),
    ),
    "--corrupted-dir expects a folder of CORRUPTION": Case(
        f"run {MOBILE} {PHOTOS} {UNTRAINED} --measure fog --corrupted-dir nowhere",
        (f"run {MOBILE} {PHOTOS} {UNTRAINED} --measure fog --corrupted-dir published",),
        _publish,
    ),
    "--corrupted-dir expects a folder {} in": Case(
        f"run {MOBILE} {PHOTOS} {UNTRAINED} --measure fog,snow --corrupted-dir published",
        (f"run {MOBILE} {PHOTOS} {UNTRAINED} --measure fog --corrupted-dir published",),
        _publish,
    ),
    "choose the data set that was corrupted by --data": Case(
        "run cnn4 --measure fog --corrupted-dir published",
        (f"run {MOBILE} {PHOTOS} {UNTRAINED} --measure fog --corrupted-dir published",),
        _publish,
    ),
    "'run' can continue without them (--on-bad-image skip)": Case(
        f"run {MOBILE} {PHOTOS} {UNTRAINED}", (f"run {MOBILE} {PHOTOS} {UNTRAINED} --on-bad-image skip",), _one_class_empty
    ),
    "'run' takes --on-bad-image skip": Case(
        "show folder:photos", (f"run {MOBILE} {PHOTOS} {UNTRAINED} --on-bad-image skip",), _one_class_small, status=0
    ),
    "or measure without such images (--on-bad-image skip)": Case(
        f"run {MOBILE} {PHOTOS} {UNTRAINED}", (f"run {MOBILE} {PHOTOS} {UNTRAINED} --on-bad-image skip",), _cut_images
    ),
    "looks for more), then repeat the command with --fresh": Case(TRAIN, ("{quoted}",), _cut_images),  # the rest: test_commands_train.py
    "add corruptions to --measure, or leave the baseline out": Case(
        "run cnn4 --limit 2 --measure fog --set corruptions.baseline=cnn4", ("run cnn4 --limit 2 --measure fog",)
    ),
    "glimpsezoo/measures/attacked.py --set attacks.{} expects a setting": Case(
        f"run cnn4 --measure pgd {ATTACKED} --set attacks.epsilon=.1", (f"run cnn4 --measure pgd {ATTACKED} --set attacks.eps=.1",)
    ),
    "expects {} to be measured: name it in --measure": Case(f"run cnn4 {FLOPS} {ATTACKED}", (f"run cnn4 --measure flops,pgd {ATTACKED}",)),
    "--measure expects any of": Case("run cnn4 --measure flop --limit 2", ("run cnn4 --measure flops --limit 2",)),
    "or the name of a recipe for other data": Case(
        "train pyramid-m3 --data plain-mnist",
        ("train pyramid-m3 --data folder:photos --recipe pyramid-m3.digits --set train.steps=1 --set data.size=56",),
    ),
    "(--print-recipe shows it)": Case(
        "train cnn4 --data folder:photos --set train.steps=1", ("train cnn4 --data folder:photos --print-recipe",), status=0
    ),
    "--epochs expects at least one epoch for each": Case(
        "train ranzato --epochs 2 --print-recipe",
        ("train ranzato --epochs 3 --print-recipe", "train ranzato --set train.steps=1 --print-recipe"),
    ),
    "--epochs expects a recipe with all phases in epochs": Case(
        "train cnn4 --recipe mixed.toml --epochs 4 --print-recipe", ("train cnn4 --recipe mixed.toml --print-recipe",), _mixed_recipe
    ),
    "expected either --{} or --set train.{}, got both": Case(
        "train cnn4 --epochs 1 --set train.epochs=2",
        ("train cnn4 --epochs 1 --print-recipe", "train cnn4 --set train.epochs=2 --print-recipe"),
    ),
    "expected either --set train.{}=none or --set {}, got both": Case(
        "train cnn4.digits.augmix --set train.augmix=none --set train.augmix.width=2 --print-recipe",
        tuple(f"train cnn4.digits.augmix --set train.augmix{rest} --print-recipe" for rest in ("=none", ".width=2")),
    ),
    "expected a recipe ('glimpsezoo list recipes')": Case("show recipe cnn4.digit", ("{quoted}", "show recipe cnn4.digits")),
    "name a card by --checkpoint, or measure it untrained (--checkpoint none)": Case(
        f"run mgnet {PHOTOS} {FLOPS}",
        (
            "{quoted} --set train.steps=1 --set data.size=48 -o new",
            f"run mgnet {PHOTOS} {FLOPS} --checkpoint new",
            f"run mgnet {PHOTOS} {FLOPS} {UNTRAINED}",
        ),
    ),
    "take the one that you trained by --checkpoint": Case(
        f"run mgnet {PHOTOS} {FLOPS}", (f"run mgnet {PHOTOS} {FLOPS} --checkpoint runs/train/mgnet.folder_photos",), _trained
    ),
    "--checkpoint expects 'none', 'timm', a card or": Case(
        f"run cnn4 {FLOPS} --checkpoint best", (f"run cnn4 {FLOPS} --checkpoint cnn4.digits",)
    ),
    "--seeds expects a range or a list of numbers": Case(f"{TRAIN} --seeds 0-2", (f"{TRAIN} --seeds 0..2 --dry-run",)),
    "--seeds expects ranges that rise": Case(f"{TRAIN} --seeds 2..0", (f"{TRAIN} --seeds 0..2 --dry-run",)),
    "--seeds expects at most": Case(f"{TRAIN} --seeds 0..1000", (f"{TRAIN} --seeds 0..2 --dry-run",)),
    "--seeds expects a recipe that trains, got {}": Case(
        "train cnn4 --recipe same.toml --seeds 0..1 -o new",
        ("train cnn4 --recipe same.toml -o new", "train cnn4 --recipe phases.toml --seeds 0..1 --dry-run"),
        _same_weights,
        status=1,
    ),
    "--seeds expects every seed once": Case(f"{TRAIN} --seeds 1,1", (f"{TRAIN} --seeds 1 --dry-run",)),
    "expected either --seed or --seeds": Case(f"{TRAIN} --seeds 0..1 --seed 1", (f"{TRAIN} --seeds 0..1 --dry-run",)),
    "--checkpoint expects one model with a file of weights": Case(
        f"run {MOBILE} cnn4 --data digits {FLOPS} --checkpoint weights.pth",
        (f"run {MOBILE} --data digits {FLOPS} --checkpoint weights.pth",),
        _weights,
    ),
    "expected a model of which files of weights can be read": Case(
        f"run cnn4 {FLOPS} --checkpoint weights.pth", ("{quoted}", f"run cnn4 {FLOPS} --checkpoint cnn4.digits"), _weights
    ),
    "--checkpoint expects a card of": Case(
        f"run mgnet {FLOPS} --checkpoint cnn4.digits", (f"run mgnet {FLOPS} --checkpoint mgnet.digits",)
    ),
    "--data-dir expects a folder, got": Case(f"run cnn4 {FLOPS} --data-dir nowhere", (f"run cnn4 {FLOPS} --data-dir photos",)),
    "try 'glimpsezoo show MODEL' for the keys": Case(f"run mgnet {FLOPS} --set glimpses", ("show mgnet",)),
    "or data.KEY for the data": Case(f"run cnn4 {FLOPS} --limit 3 --set seed=1", (f"run cnn4 {FLOPS} --limit 3 --set data.seed=1",)),
    "--set {}={} for {}": Case(f"run cnn4 {FLOPS} --limit 3 --set data.seed=x", (f"run cnn4 {FLOPS} --limit 3 --set data.seed=1",)),
    "holds the checkpoint of another training": Case(f"{TRAIN} -o mine", (f"{TRAIN} -o mine --fresh",), _stopped_training),
    "start over with --fresh": Case(f"{TRAIN} -o mine", (f"{TRAIN} -o mine --fresh",), _damaged),
    "another command writes to": Case(f"{TRAIN} -o mine", (f"{TRAIN} -o other",), lambda stack: stack.enter_context(locked(Path("mine")))),
    "--set data.KEY expects a data set": Case("check cnn4 --set data.size=16", ("check cnn4 --data folder:photos --set data.size=16",)),
    "expected a run or a card, got none": Case("compare", ("{quoted}", "compare small")),
    "measure it with 'glimpsezoo run', and name the folder of its results": Case(
        "compare cnn4", (f"run cnn4 {FLOPS} -o results", "compare results")
    ),
    "glimpsezoo run {} --update-card": Case("compare unmeasured", ("run unmeasured --update-card", "compare unmeasured")),
    "is not of its weights: measure it again with --update-card": Case(
        "compare small", ("run small --measure accuracy --update-card", "compare small"), _other_weights
    ),
    "workflows/importing.py choose another --output, or --force": Case(
        f"import {MOBILE} weights.pth -o zoo_cards/cnn4.digits",
        (f"import {MOBILE} weights.pth -o new", f"import {MOBILE} weights.pth -o zoo_cards/cnn4.digits --force"),
        _weights,
    ),
    "--data expects data with the checkpoint's {} classes": Case(
        f"import {MOBILE} weights.pth -o new --data imagenet", (f"import {MOBILE} weights.pth -o new --data digits",), _weights
    ),
    "expects the data that the weights were trained on, got none": Case(
        f"import {MOBILE} weights.pth -o new --set data.seed=1",
        (f"import {MOBILE} weights.pth -o new --set data.seed=1 --data digits",),
        _weights,
    ),
    "end the name of a folder with a slash": Case("export cnn4 -o cnn4.digits", ("export cnn4 -o cnn4.digits/",)),
    "which is a file: choose another name": Case("export cnn4 -o new", ("export cnn4 -o other",), lambda stack: Path("new").write_text("")),
    "workflows/exporting.py choose another --output, or --force": Case(
        "export cnn4 -o new.pt2",
        ("export cnn4 -o other.pt2", "export cnn4 -o new.pt2 --force"),
        lambda stack: Path("new.pt2").write_text(""),
    ),
    "choose another by --output, or --force": Case(
        "new-plugin spot -o photos", ("new-plugin spot -o plugins/spot", "new-plugin spot -o photos --force")
    ),
    "glimpsezoo/files.py choose another --output": Case(f"run cnn4 {FLOPS} -o tiny.toml", (f"run cnn4 {FLOPS} -o results",)),
    "--output expects a name that ends in .html": Case("report small -o x.pdf", ("report small -o x.html --traces 0",)),
    "-o expects a Markdown file": Case("compare --paper ranzato-2014 -o x.txt", ("compare --paper ranzato-2014 -o x.md",)),
    "-o expects a file that can be written": Case(
        "compare --paper ranzato-2014 -o tiny.toml/x.md", ("compare --paper ranzato-2014 -o x.md",)
    ),
    "--update-card expects models in float32": Case(
        "run small --precision bf16 --update-card", ("run small --precision bf16", "run small --update-card")
    ),
    "--precision expects float32": Case(f"run cnn4 {FLOPS} --precision b16", (f"run cnn4 {FLOPS} --precision bf16",)),
    "--update-card expects trained cards": Case(
        f"run cnn4 {PHOTOS} {UNTRAINED} --update-card", ("run small --update-card", f"run cnn4 {PHOTOS} {UNTRAINED}")
    ),
    "--corrupted-dir expects corruptions to be measured": Case(
        f"run {MOBILE} {PHOTOS} {UNTRAINED} --corrupted-dir published",
        (f"run {MOBILE} {PHOTOS} {UNTRAINED} --measure fog --corrupted-dir published", f"run {MOBILE} {PHOTOS} {UNTRAINED}"),
        _publish,
    ),
    "leave them out of --measure": Case(
        f"run {MOBILE} --data folder:photos {UNTRAINED} --set data.size=16 --measure accuracy,fog",
        (f"run {MOBILE} --data folder:photos {UNTRAINED} --set data.size=16 --measure accuracy",),
    ),
    "write it as --help says": Case("run --config wrong.toml", ("run --help", "run --config mine.toml"), _configs),
    "--split expects one of": Case(f"run cnn4 {FLOPS} --split tests", (f"run cnn4 {FLOPS} --split test",)),
    "--limit expects a number of images from 1": Case(f"run cnn4 {FLOPS} --limit 0", (f"run cnn4 {FLOPS}",)),
    "--batch-size expects": Case(f"run cnn4 {FLOPS} --batch-size 0", (f"run cnn4 {FLOPS} --batch-size auto",)),
    "try 'glimpsezoo run mgnet', or 'glimpsezoo list models'": Case("run", ("{quoted} --limit 3 --measure quick", "list models")),
    "expected a folder of this run": Case(
        f"run cnn4 {UNTRAINED} {FLOPS} -o taken",
        (f"run cnn4 {UNTRAINED} {FLOPS} -o new", f"run cnn4 {UNTRAINED} {FLOPS} -o taken --force"),
        _taken,
    ),
    "or measure without exits (--measure quick)": Case(
        f"run mgnet {PHOTOS} {UNTRAINED} --measure anytime",
        (f"run mgnet {PHOTOS} {UNTRAINED} --measure quick",),
        lambda stack: [path.unlink() for path in Path("photos").glob("*/*.png") if int(path.stem) > 9],
    ),
    "(--index) or image files (--image), got both": Case("trace cnn4 --index 1 --image tiny.toml", ("trace cnn4 --index 1",)),
    "--image expects a trained card or data of a known size": Case(
        f"trace {MOBILE} {PHOTOS} {UNTRAINED} --image photos/cat/0.png", (f"trace {MOBILE} {PHOTOS} {UNTRAINED} --index 0",)
    ),
    "for example --set {}.threshold=0.9": Case("trace mgnet --set anytime.rule=entropy", ("trace mgnet --set anytime.threshold=0.9",)),
    "--output expects {}, got": Case("trace cnn4 -o x.pdf", ("trace cnn4 -o x.png",)),
    "workflows/tracing.py expected a new file": Case(
        "trace cnn4 -o x.png", ("trace cnn4 -o y.png", "trace cnn4 -o x.png --force"), lambda stack: Path("x.png").write_text("")
    ),
    "--index expects an image of the": Case("trace cnn4 --index 999999", ("trace cnn4 --index 0",)),
    "to be named by --under: leave it out": Case(
        "trace cnn4 --set pgd.steps=2", ("trace cnn4 --set pgd.steps=2 --under pgd", "trace cnn4 -o b.png")
    ),
    "workflows/tracing.py --set attacks.{} expects": Case(
        "trace cnn4 --under pgd --set attacks.epsilon=.1", ("trace cnn4 --under pgd --set attacks.eps=.1",)
    ),
    "name its files, or use 'glimpsezoo predict'": Case(
        "trace cnn4 --image photos", ("predict cnn4 photos", "trace cnn4 --image photos/cat/0.png")
    ),
    "expected one format, got --json and --csv": Case("predict cnn4 photos --json --csv", ("predict cnn4 photos --csv",)),
    "--set {}.{} does not change predictions": Case("predict cnn4 photos --set pgd.eps=.1", ("predict cnn4 photos",)),
    "expected --data {}, the data of the recipe": Case("train cnn4.digits --data mnist", ("train cnn4.digits --set train.steps=1",)),
    "train it first ('glimpsezoo train {}')": Case(
        f"{ON_DIGITS} --set train.start=cnn4.digits",
        ("{quoted} --set train.steps=1", f"{ON_DIGITS} --set train.start=cnn4.digits"),
        _no_cards,
    ),
    "leave them to AugMix by --set data.colours=keep": Case(
        f"{TRAIN} --set train.augmix.weight=6 -o mine", (f"{TRAIN} --set train.augmix.weight=6 --set data.colours=keep -o mine",)
    ),
    "or --force to train it again": Case(
        f"{TRAIN} -o zoo_cards/mgnet.digits", (f"{TRAIN} -o new", f"{TRAIN} -o zoo_cards/mgnet.digits --force")
    ),
    "that of the card to start from, got {} for both": Case(
        f"{ON_DIGITS} --set train.start=zoo_cards/cnn4.digits -o zoo_cards/cnn4.digits --force",
        (f"{ON_DIGITS} --set train.start=zoo_cards/cnn4.digits -o new",),
    ),
    "--recipe expects a TOML file": Case("train cnn4 --recipe cnn4.digit", ("train cnn4 --recipe cnn4.digits --set train.steps=1",)),
    "choose a multiple (--set image_size={})": Case(
        f"run timm:vit_tiny_patch16_224 --data folder:photos --set data.size=50 {UNTRAINED} {FLOPS}",
        (f"run timm:vit_tiny_patch16_224 --data folder:photos --set data.size=50 --set image_size=48 {UNTRAINED} {FLOPS}",),
    ),
}
