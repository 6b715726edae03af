"""Answers of finished runs: a repeated command is answered without torch, from what it wrote and printed the last time.

An answer is stored under a key made of the command's words and options, the environment, the versions of all packages, and the cards that
names can mean. It is used only if no file that decided it has changed: code, cards, local data, finished units, results. A run is not
remembered if anything else may have decided it: the Hub, a clock, or a file that changed while it ran.
"""

import datetime as dt
import hashlib
import json
import os
import platform
import re
import site
import sys
import sysconfig
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimpsezoo.data.digests import SETTLED, local_digests
from glimpsezoo.evaluation.environment import commit, cpu_name
from glimpsezoo.files import write_whole
from glimpsezoo.hashing import content_hash, sha256_of
from glimpsezoo.ranks import usable_cores
from glimpsezoo.zoo.cards import ROWS, card_paths

if TYPE_CHECKING:
    from glimpsezoo.run.request import RunOutcome
    from glimpsezoo.run.work import RunWork

PLACE = Path("runs", ".units", "answers")
PACKAGE = __name__.partition(".")[0]
VERSION = 1  # of the format
VOLATILE = ("_", "SHLVL", "OLDPWD", "SSH_")  # environment variables that begin like this decide nothing
DOES_MORE = ("fresh", "force", "update_card", "compile", "dry_run", "debug", "store")  # with one of these, a run does more than answer
NO_CODE = {"__pycache__", "zoo_cards"}  # folders of a package; the cards that a run uses are inputs of their own


@dataclass(frozen=True)
class Answer:
    """What a finished run says when it is repeated."""

    said: tuple[str, ...]
    """Lines of standard error."""
    shown: str
    """The tables, as they were printed."""
    results: tuple[Path, ...]
    """The result.json of every model."""
    comparison: Path | None
    """comparison.json, if there is one."""

    def as_json(self) -> str:
        """The output of `run --json`."""
        return combined([path.read_text("utf-8") for path in self.results], self.comparison and self.comparison.read_text("utf-8"))


@dataclass(frozen=True)
class Question:
    """A command, before torch or any code that computes is loaded."""

    key: str
    asked: float
    """When, in seconds since the epoch."""

    @property
    def path(self) -> Path:
        return PLACE / f"{self.key}.json"


def combined(results: Sequence[str], comparison: str | None) -> str:
    """The output of `run --json`, from the texts of its files: all results, and their comparison if there are several."""
    return json.dumps({"results": [*map(json.loads, results)], "comparison": json.loads(comparison) if comparison else None}, indent=2)


def question_of(options: Mapping[str, Any], screen: Mapping[str, Any], words: Sequence[str] | None = None) -> Question | None:
    """The question that these options of `run` ask; None if the answer cannot be remembered.

    screen: what decides how tables are drawn. words: of the command; None means those of this process. A process that has loaded torch is
    not asked, because its code may differ from its files.
    """
    if "torch" in sys.modules or any(options[name] for name in DOES_MORE):
        return None
    asked = time.time()
    named = (*options["models"], options["checkpoint"] or "")
    content = {
        "version": VERSION,
        "words": sys.argv[1:] if words is None else words,
        "options": options,
        "screen": screen,
        "folder": os.getcwd(),
        "environment": {name: value for name, value in os.environ.items() if not name.startswith(VOLATILE)},
        "machine": [*platform.uname(), cpu_name(), sorted(map(str, Path("/dev").glob("nvidia*")))],
        "cores": usable_cores(),
        "python": sys.version,
        "packages": list(_installed()),
        "commit": commit(Path(__file__).parents[1]),
        "cards": {name: str(path.resolve()) for name, path in card_paths().items()},
        "folders": [os.path.isdir(name) for name in named],  # a folder goes before the name of a card
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return Question(hashlib.sha256(text.encode()).hexdigest()[:32], asked)


def recall(question: Question | None) -> Answer | None:
    """The answer, if it is known and all of its inputs are what they were. Its results are dated now, and all units are reused."""
    if question is None:
        return None
    try:
        known = json.loads(question.path.read_bytes())
        paths = [Path(name) for name in known["results"]]
        inputs = {path for place in known["packages"] for path in _code(Path(place))} | set(map(Path, known["files"])) | set(paths)
        if known["digests"] != _digests(inputs) or known["data"] != _trees(known["trees"]):
            return None
        for path in paths:
            _redate(path)
        write_whole(question.path, json.dumps({**known, "digests": {**known["digests"], **_digests(paths)}}).encode())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # whatever is wrong, the run answers by itself
        return None
    return Answer(tuple(known["said"]), known["shown"], tuple(paths), Path(known["comparison"]) if known["comparison"] else None)


def remember(question: Question | None, work: "RunWork", outcome: "RunOutcome", shown: str) -> None:
    """Store the answer of a finished run, if only files on this machine decided it."""
    if question is None or not _decided_here(work, outcome):
        return
    comparison = work.folder / "comparison.json" if outcome.comparison else None
    packages, trees = sorted(map(str, _packages())), sorted(map(str, _data_of(work)))
    rows = [path.with_name(ROWS) for path in outcome.written if path.with_name(ROWS).exists()]
    units = sum(result.run.units.done + result.run.units.reused for result in outcome.results)
    try:
        cards = {path for choice in work.choices if choice.card for path in _code(choice.card.folder)}
        inputs = {path for place in packages for path in _code(Path(place))} | cards | set(_loaded_elsewhere())
        files = {*inputs, *outcome.written, *rows, work.folder / "command.toml", *([comparison] if comparison else [])}
        data = _trees(trees)
        if any(_changed(path) > question.asked - SETTLED for path in (*inputs, *map(Path, data))):
            return  # while it ran, or so shortly before that the time stamps do not tell
        known = {
            "packages": packages,
            "files": sorted(map(str, files)),
            "digests": _digests(files),
            "trees": trees,
            "data": data,
            "results": [str(path) for path in outcome.written],
            "comparison": comparison and str(comparison),
            "said": [work.summary((0.0, units)), *work.warnings, *work.said, f"0 units measured, {units} reused; results in {work.folder}"],
            "shown": shown,
        }
        question.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(question.path, json.dumps(known).encode())
    except OSError:
        return  # a folder that cannot be read or written: the next run does its work again


def _decided_here(work: "RunWork", outcome: "RunOutcome") -> bool:
    """Whether files on this machine decide the answer: not the Hub, not a clock, and no unit failed."""
    from glimpsezoo.evaluation.plan import PlannedFinding

    spec, request = work.chosen.spec, work.request
    return (
        work.bench is not None
        and (spec.embedded or spec.local or request.data_dir is not None)
        and request.checkpoint != "timm"
        and all(choice.card is None or choice.card.has_file for choice in work.choices)
        and all(not isinstance(planned, PlannedFinding) or planned.identity is not None for _, planned in work.plan)
        and all(result.run.status == "done" for result in outcome.results)
    )


def _data_of(work: "RunWork") -> list[Path]:
    """The folders with the data, as far as they are not in a package."""
    named = [work.request.data_dir, work.request.corrupted_dir]
    if work.chosen.spec.local:
        named.append(work.chosen.name.removeprefix(work.chosen.spec.name))
    return [Path(name).expanduser().resolve() for name in named if name is not None]


def _installed() -> Iterator[tuple[str, int]]:
    """Every installed distribution with its version, and when it was installed."""
    for folder in sys.path:
        with suppress(OSError):
            with os.scandir(folder or ".") as entries:
                found = [entry for entry in entries if entry.name.endswith((".dist-info", ".egg-info", ".pth"))]
            yield from sorted((entry.name, entry.stat().st_mtime_ns) for entry in found)


def _packages() -> set[Path]:
    """The folders of this package and of all plugins, wherever they are."""
    names = {point.module.partition(".")[0] for point in entry_points(group=PACKAGE)} | {PACKAGE}
    specs = [spec for name in names if (spec := find_spec(name))]
    return {Path(place) for spec in specs for place in spec.submodule_search_locations or [spec.origin or ""]}


def _code(place: Path) -> Iterator[Path]:
    """All files of a package or of a card, or the one file of a module."""
    yield from [place] if place.is_file() else _files_below(place, NO_CODE)


def _files_below(folder: Path, but: Container[str] = (), above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files in a folder at any depth, without the folders named in `but`. Links to folders are followed, as where data are read."""
    real = os.path.realpath(folder)
    if real in above:
        return  # by a link that leads back
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield Path(entry.path)
            elif entry.name not in but:
                yield from _files_below(Path(entry.path), but, above | {real})


def _loaded_elsewhere() -> set[Path]:
    """The files of loaded modules that belong neither to Python nor to an installed distribution."""
    known = [*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), *site.getsitepackages(), site.getusersitepackages()]
    files = {str(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    return {Path(file) for file in files if os.path.isfile(file) and not any(Path(file).is_relative_to(place) for place in known)}


def _digests(files: Iterable[Path]) -> dict[str, str]:
    return {str(path): sha256_of(path) for path in files}


def _trees(folders: Iterable[str]) -> dict[str, str]:
    """All files below these folders, with their digests: those of data, which may be many, are cached by their time stamps."""
    files = sorted(str(path) for folder in folders for path in _files_below(Path(folder)))
    return dict(zip(files, local_digests(files), strict=True))


def _changed(path: Path) -> float:
    """When the file last changed, in seconds since the epoch."""
    found = path.stat()
    return max(found.st_mtime, found.st_ctime)


def _redate(path: Path) -> None:
    """Rewrite a result as if the run had just been repeated: it starts and finishes now, and all units are reused."""
    text, now = path.read_text("utf-8"), dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
    units = json.loads(text)["run"]["units"]
    for key, value in {"started": f'"{now}"', "finished": f'"{now}"', "done": "0", "reused": str(units["done"] + units["reused"])}.items():
        text = re.sub(rf'"{key}": [^,\n]+', f'"{key}": {value}', text, count=1)  # the run is the first section
    found = json.loads(text)
    if found.get("hashes"):
        text = text.replace(found["hashes"]["content"], content_hash(found))
    write_whole(path, text.encode())
