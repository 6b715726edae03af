"""No advice leads into a wall: every message that names a command or an option is provoked here, and what it advises is done.

The messages are collected from the source. One that is new needs an entry: in `OF_COMMANDS` or `OF_DATA`, a command that is answered by
the message and the commands that its advice leads to; or in `ELSEWHERE`, where it is provoked by another test, or cannot be here, and why.
Of all of them, the commands and options that they name must be ones.
"""

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from advice import OF_COMMANDS
from advice_of_data import OF_DATA
from command_line import COMMANDS, RECIPE, TRACES, ask, lonely, make_card, photo_card
from PIL import Image

from glimpsezoo.commands import main

ROOT = Path(__file__).parent.parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+|(?<![\w-])-o\b")
COMMAND = re.compile(rf"glimpsezoo ({'|'.join(COMMANDS)}|{{}})\b([^'`;,)]*)")
OTHERS = ("environment.py", "reports/paper.py", "reports/page.py")  # git's options, and pages that are tested as docs
FOLLOWED = {**OF_COMMANDS, **OF_DATA}
HOLE = "{}"  # for what an f-string puts in


@dataclass(frozen=True)
class Message:
    """A text of the source that names a command or an option."""

    place: str
    text: str

    @property
    def pieces(self) -> list[str]:
        """What of it is always the same."""
        return [piece for piece in self.text.split(HOLE) if len(piece) > 6]


def collected() -> list[Message]:
    """Every such text: no docstring, and none that declares an option."""
    found = []
    for path in sorted([*ROOT.glob("glimpsezoo/**/*.py"), *ROOT.glob("plugins/*/glimpsezoo_*/**/*.py")]):
        if path.as_posix().endswith(OTHERS):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = {id(each) for node in ast.walk(tree) for each in _declared(node)}
        for node in ast.walk(tree):
            text = _text(node)
            if text and id(node) not in skipped and len(text) > 12 and (OPTION.search(text) or COMMAND.search(text)):
                found.append(Message(f"{path.relative_to(ROOT)}:{node.lineno}", text))  # type: ignore[attr-defined]
    return found


def _declared(node: ast.AST) -> Iterator[ast.AST]:
    """What is not a message: docstrings (of fields, too), options of click, and the parts of an f-string by themselves."""
    if isinstance(node, ast.Expr):
        yield node.value
    if isinstance(node, ast.JoinedStr):
        yield from (each for part in node.values for each in ast.walk(part))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        if name in {"option", "Field"}:
            yield from ast.walk(node)


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    return None


MESSAGES = collected()


HUB = "of the Hub: tests/test_hub_*.py"
ELSEWHERE = {
    "name another by --set revision=REVISION": HUB,
    "--grid expects": "about a line of a grid's file: test_grid provokes each; those with other advice are followed",
    "run again with fewer --workers": "a process is killed: test_data_changed",
    "--engine expects auto, threads, processes:N or ray": "test_sharing and test_engines provoke it; an engine of the list is taken",
    "expected the ranks of torchrun to share the work": "test_sharing provokes it; both remedies leave an option out",
    "start a cluster there ('ray start'), or correct --ray-address": "test_engines asks where nobody answers, and starts a cluster",
    "with fewer processes or a smaller --batch-size": "workers die: test_sharing; the same command goes on",
    "--engine ray expects the package ray": "test_engines hides the package",
    "use --engine threads": "test_sharing has what cannot be pickled; one process pickles nothing",
    "repeat the command with --debug for the traceback": "a fault of ours: test_commands_bad_input",
    "--data expects data with the checkpoint's {} channel(s)": "as that about classes; no declared set has as many in other colours",
    "Measure accuracy, cost and robustness of models on --data.": "the summary of a command",
    "Train MODEL on --data, and write a card for 'run'.": "the summary of a command",
    "install it: pip install -e": "test_commands_new_plugin and test_docs_plugins install it",
    "train one ('glimpsezoo train {}')": "a part of the message about a card that is not there, which is followed",
    ": the same command without --fresh resumes here": "test_commands_train stops one",
    "--corrupted-dir expects severities": "as those above: the folder is completed",
    "--corrupted-dir expects images of every class": "as those above: the folder is completed",
    "--corrupted-dir expects as many images": "as those above: the folder is completed",
    "--data-dir expects the Parquet files": HUB,
    "name it by --set data.{}=COLUMN": HUB,
    "or read a copy on disk by --data-dir": HUB,
    "--set data.{}={} expects a column": HUB,
    "name another split by --set data.test=NAME": HUB,
    "--limit expects 1 image or more": "of the Python interface: the command line asks before",
    "or --force (the old commit stays)": HUB,
    "--update-card expects cards in local folders": HUB,
    "workflows/sharing.py or --force to replace it": HUB,
    "or --force to let the new card precede that one": HUB,
    "choose another --batch-size, or fewer processes": "test_torchrun refuses such batches",
    ": repeat the command with --debug": "a fault of ours in one of several processes",
    "or that of this training, got another": "test_seeds provokes it; another folder is chosen above",
    "see 'glimpsezoo plugins')": "a plugin that is broken: test_plugins",
    "expected the rows of {} (seed {})": "test_claims provokes it; that --update-card writes the rows is seen in test_which_card",
    "make room, or move the folder and name its new place with --store": "a full disk: test_full_disk",
    "--store expects a folder or a URL, got nothing": "of the Python interface: the command line takes it for no option",
    "--store expects a URL without credentials": "test_remote_store, with a server",
    "--store expects a protocol that is installed": "test_remote_store, without the package",
    "repeat the command when it can be, which resumes": "test_full_disk fills disks, or makes them read-only; another folder: above",
    "from the Hub or (`--data-dir DIR`) from a copy on disk": "the text of a card: test_docs_true",
    "try the size it was made for, --set image_size": "test_timm_model",
    "connect, or measure without weights (--checkpoint none)": "test_timm_pretrained",
}


def _answers(fragment: str, message: Message) -> bool:
    """A fragment may begin with the end of a module's path, where two modules say the same."""
    path, _, rest = fragment.partition(".py ")
    return rest in message.text and path in message.place if rest else fragment in message.text


def test_every_message_that_names_a_command_or_an_option_is_followed_here():
    entries = {**FOLLOWED, **ELSEWHERE}
    new = [f"{m.place}: {m.text}" for m in MESSAGES if not any(_answers(fragment, m) for fragment in entries)]
    assert not new, "messages without an entry:\n" + "\n".join(new)
    gone = [fragment for fragment in entries if not any(_answers(fragment, message) for message in MESSAGES)]
    assert not gone, f"entries without a message: {gone}"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.place)
def test_what_a_message_names_is_a_command_or_an_option_of_one(message: Message):
    options = {name: {text for each in command.params for text in each.opts} for name, command in COMMANDS.items()}
    for option in OPTION.findall(message.text):
        assert option in {"--debug", "--help", *(each for known in options.values() for each in known)}
    for name, rest in COMMAND.findall(message.text):
        assert name == HOLE or set(OPTION.findall(rest)) <= options[name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world that every case begins with: four untrained cards, one of them measured, some photographs, and a recipe."""
    folder = tmp_path_factory.mktemp("world")
    for name, value in (("cat", 50), ("dog", 200)):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (48, 48), (value + number,) * 3).save(folder / "photos" / name / f"{number}.png")
    (folder / "tiny.toml").write_text(RECIPE)
    make_card(folder / "zoo_cards" / "cnn4.digits")
    for name in ("small", "unmeasured"):
        photo_card(folder / "zoo_cards" / name, classes="cat dog")
    make_card(folder / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2, backbone="cnn4", downsample=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["glimpsezoo", "run", "small", "--measure", "accuracy", "--update-card"])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 0
    shutil.rmtree(folder / "runs")
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lonely(monkeypatch, tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("fragment", list(FOLLOWED))
def test_the_advice_of_a_message_works(world: Path, capsys: pytest.CaptureFixture[str], fragment: str):
    case = FOLLOWED[fragment]
    if case.words.startswith("export") and not TRACES:
        pytest.skip("torch is too old to export")
    with ExitStack() as stack:
        case.before(stack)
        answer = ask(capsys, *shlex.split(case.words))
        said = " ".join((answer.err + answer.out).split())
        assert answer.status == case.status, said
        pieces = next([" ".join(piece.split()) for piece in m.pieces] for m in MESSAGES if _answers(fragment, m))
        assert all(piece in said for piece in pieces), f"{said}\nlacks one of {pieces}"
        quoted = re.search(r"'glimpsezoo ([^']+)'", said)
        for then in case.then:
            words = then.replace("{quoted}", quoted[1] if quoted else "").replace("DIR", "new")
            followed = ask(capsys, *shlex.split(words))
            assert followed.status == 0, f"{words}: {followed.err}"
