"""Every command of every page runs, or is marked with what it needs: data of the Hub, a file or a name of the reader's, an hour.

`run` and `train` plan with --dry-run here, so that all that they name is looked up and nothing is computed; the other commands run, in a
folder with what the pages speak of: photographs, a card of one's own, pictures of digits.
"""

import re
import shlex
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from command_line import RECIPE, TRACES, Answer, ask, make_card, photo_card, photos
from PIL import Image

import glimpsezoo as gz
from glimpsezoo.commands import main

ROOT = Path(__file__).parent.parent
FIRST = ("index", "tutorial", "own-data", "exits", "production", "exporting", "shell")  # what a reader tries; the others are slow
LEFT_OUT = ("REPRODUCTION", "findings")  # results, with commands of hours; their words are checked in test_docs
MARKED = re.compile(r"\b[A-Z]{3,}[A-Z_.]*\b|<|\$|\{|\bme/|\.ckpt|\.pth|\bcards/|(?<!\S)plain(?!\S)")
# CHECKPOINT, an account, a released file or its card, and the model that 'new-plugin' makes
ELSEWHERE = re.compile(
    r"cannot reach the Hub|is not on this machine|expects a folder, got 'data'|"
    r"needs Python 3.12|Hub cannot be reached|is not installed: pip install"
)
PLANNED = ("run", "train")
SECONDS = {"check", "completion", "push", "pull", "new-plugin"}  # tested elsewhere


def pages() -> list[Path]:
    found = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]
    return [path for path in found if path.stem not in LEFT_OUT]


def blocks_of(path: Path, *languages: str) -> list[str]:
    """The blocks of a page in one of these languages; '' is none."""
    found = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def commands_of(path: Path) -> list[str]:
    """The commands of the blocks of a page, without comments; a backslash continues a line."""
    found = []
    blocks = blocks_of(path, "sh", "bash", "")
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for part in re.split(r" && | \| ", line.partition(" #")[0]):
            if part.strip().startswith("glimpsezoo "):
                found.append(" ".join(part.split()))
    return found


def listed() -> list[Any]:
    """Each command once, by its first page."""
    first: dict[str, Path] = {}
    for path in pages():
        for command in commands_of(path):
            first.setdefault(command, path)
    quick = {ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in FIRST)}
    return [pytest.param(command, path, id=command, marks=() if path in quick else pytest.mark.slow) for command, path in first.items()]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader works."""
    desk = tmp_path_factory.mktemp("desk")
    photos(desk / "photos")
    shutil.copytree(ROOT / "zoo_cards" / "mgnet.digits", desk / "my_card")
    shutil.copytree(ROOT / "zoo_cards" / "cnn4.digits", desk / "mobilenet.digits")
    trained = {"mgnet.digits": "mgnet.digits", "mgnet.gtmnist": "mgnet.gtmnist", "timm_resnet18.digits": "cnn4.digits"}
    for name, card in trained.items():
        shutil.copytree(ROOT / "zoo_cards" / card, desk / "runs" / "train" / name)
    task = gz.Task((64, 64), 3, ("dark", "light"))
    small = {"backbone": "resnet18", "downsample": 2}
    make_card(desk / "mgnet.photos", "mgnet", data="folder:photos", task=task, data_settings={"size": 64}, **small)
    photo_card(desk / "resnet18.photos", size=64)
    pixels = (255 * gz.open_data("digits")[57].image[0].numpy()).astype("uint8")
    (desk / "grid.toml").write_text(blocks_of(ROOT / "docs" / "scale.md", "toml")[0])
    for name in ("seven.png", "four.png", "four.jpg", "digit.png", "cat.jpg"):
        Image.fromarray(pixels).save(desk / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        with pytest.raises(SystemExit, match="0"):
            main(["run", "mgnet", "cnn4", "--limit", "20", "--measure", "accuracy", "-o", "runs/two"])
    (desk / "runs" / "7784dccdc0").mkdir()
    shutil.copy(desk / "runs" / "two" / "command.toml", desk / "runs" / "7784dccdc0")
    return desk


@pytest.fixture
def tell(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    monkeypatch.chdir(desk)

    def tell(*words: str) -> Answer:
        if {"--config", "--grid"} & set(words):  # the file says what is measured
            monkeypatch.setattr("command_line.quickly", lambda texts: texts)
        monkeypatch.setattr("sys.stdin", StringIO("seven.png\n"))  # what a pipe would bring
        return ask(capsys, *words)

    return tell


@pytest.mark.parametrize(("command", "page"), listed())
def test_the_command_runs_or_is_marked(command: str, page: Path, tell: Callable[..., Answer]):
    words = shlex.split(command.partition(" > ")[0])[1:]
    if MARKED.search(command) or words[0] in SECONDS:
        return
    if words[0] == "export" and not TRACES:
        pytest.skip("torch is too old to export")
    Path("mine.toml").write_text('models = ["cnn4"]\nmeasure = "accuracy,pgd"\n' if words[0] == "run" else RECIPE)
    if words[0] in PLANNED:
        words += [] if {"--dry-run", "--print-recipe"} & set(words) else ["--dry-run"]
        words += ["--force"]  # `my_card` and others are there already
    elif words[0] in {"trace", "report", "export", "compare"} and "-o" in words:
        words += ["--force"] if words[0] in {"trace", "export"} else []
    answer = tell(*words)
    if answer.status and ELSEWHERE.search(answer.err):  # the command names the data; its page must say where they come from
        text = page.read_text(encoding="utf-8")
        assert re.search(r"Hub|--data-dir|ImageNet|MNIST|Python 3.12", text), (
            f"{page.name} does not say what {command!r} needs: {answer.err}"
        )
        return
    assert answer.status == 0, answer.err
