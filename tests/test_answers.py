"""A run that is repeated answers without torch, with the same words and numbers; whatever could have changed them makes it run again."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import make_card

from glimpsezoo.hashing import is_unchanged
from glimpsezoo.measures import calibration
from glimpsezoo.run import answers
from glimpsezoo.run.answers import Question, question_of, recall, remember
from glimpsezoo.run.finishing import finish
from glimpsezoo.run.prepare import prepare
from glimpsezoo.run.request import RunOutcome, RunRequest
from glimpsezoo.run.work import RunWork

LATER = 60.0  # seconds: a question that is asked later than every input changed
OPTIONS: dict[str, Any] = {"models": ("cnn4",), "checkpoint": None, "limit": 10, **dict.fromkeys(answers.DOES_MORE, False)}
ASK = """
import sys
from glimpsezoo.commands import main
try:
    main()
except SystemExit as stop:
    print("torch" in sys.modules, stop.code, file=sys.stderr)
"""


def finished(here: Path, measures: tuple[str, ...] = ("accuracy",), **options: Any) -> tuple[RunWork, RunOutcome]:
    """A run of a card in zoo_cards, on ten images."""
    if not (here / "zoo_cards" / "cnn4.digits").is_dir():
        make_card(here / "zoo_cards" / "cnn4.digits")
    work = prepare(
        RunRequest(models=("cnn4.digits",), data=None, device=torch.device("cpu"), limit=10, measures=measures, force=True, **options)
    )
    work.get_ready()
    work.measure(lambda *_: None)
    return work, finish(work)


def asked(after: float = LATER) -> Question:
    return Question("question", time.time() + after)


def test_a_repeated_command_says_the_same_without_torch(tmp_path: Path) -> None:
    words = ["run", "cnn4.digits", "--measure", "quick", "--limit", "20", "-o", "out"]
    make_card(tmp_path / "zoo_cards" / "cnn4.digits")
    for path in (tmp_path / "zoo_cards" / "cnn4.digits").iterdir():
        os.utime(path, (0, 0))
    time.sleep(answers.SETTLED)  # the time of a file's last change cannot be set

    def ask(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", ASK, *words, *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    result = tmp_path / "out" / "cnn4.digits" / "result.json"
    first = ask()
    before = json.loads(result.read_bytes())
    again, as_json = ask(), ask("--json")
    assert (first.stderr.splitlines()[-1], again.stderr.splitlines()[-1]) == ("True 0", "False 0")
    assert again.stdout == first.stdout
    assert "(1 unit measured already)" in again.stderr
    assert "0 units measured, 1 reused; results in out" in again.stderr
    assert as_json.stderr.splitlines()[-1] == "True 0"  # another question: it reuses the unit
    after = json.loads(result.read_bytes())
    assert after == json.loads(as_json.stdout)["results"][0]
    assert is_unchanged(result.read_bytes())
    runs, hashes = (before.pop("run"), after.pop("run")), (before.pop("hashes"), after.pop("hashes"))
    assert after == before
    assert hashes[0]["rows"] == hashes[1]["rows"]
    assert [run["units"] for run in runs] == [{"done": 1, "reused": 0}, {"done": 0, "reused": 1}]
    assert runs[1]["started"] > runs[0]["finished"]


def test_an_answer_is_dated_anew_and_its_numbers_stay(here: Path) -> None:
    work, outcome = finished(here)
    before = outcome.written[0].read_text()
    remember(asked(), work, outcome, "a table")
    for _ in range(2):
        answer = recall(asked())
        assert answer is not None
        assert (answer.shown, answer.results) == ("a table", outcome.written)
        assert json.loads(answer.as_json())["comparison"] is None
    lines = outcome.written[0].read_text().splitlines()
    differ = [line.split()[0] for line, old in zip(lines, before.splitlines(), strict=True) if line != old]
    assert differ == ['"started":', '"finished":', '"done":', '"reused":', '"content":']
    assert is_unchanged("\n".join(lines))


@pytest.mark.parametrize(
    "change",
    [
        lambda here, result: (here / "zoo_cards" / "cnn4.digits" / "config.json").write_text("{}"),
        lambda here, result: (here / "zoo_cards" / "cnn4.digits" / "model.safetensors").unlink(),
        lambda here, result: result.write_text(result.read_text().replace("0.1", "0.2")),
        lambda here, result: result.unlink(),
        lambda here, result: result.with_name("rows.parquet").write_bytes(b"junk"),
        lambda here, result: result.with_name("rows.parquet").unlink(),
        lambda here, result: (here / "package" / "module.py").write_text("print('b')"),
        lambda here, result: (here / "package" / "new.py").write_text(""),
        lambda here, result: (here / "runs" / ".units" / "answers" / "question.json").write_text("{"),
    ],
    ids=["settings", "weights", "a number", "no result", "damaged rows", "no rows", "code", "new code", "a damaged answer"],
)
def test_what_has_changed_is_measured_again(here: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, Path], Any]) -> None:
    package = here / "package"
    package.mkdir()
    (package / "module.py").write_text("print('a')")
    packages = answers._packages()
    monkeypatch.setattr(answers, "_packages", lambda: {*packages, package})
    work, outcome = finished(here)
    remember(asked(), work, outcome, "a table")
    assert recall(asked()) is not None
    change(here, outcome.written[0])
    assert recall(asked()) is None


def test_data_of_one_s_own_are_inputs(here: Path) -> None:
    from command_line import photos

    photos(here / "photos", per_class=12)
    data = f"folder:{here / 'photos'}"
    work, _ = finished(here)
    chosen = replace(work.chosen, name=data, spec=replace(work.chosen.spec, name="folder:", prefix=True, embedded=False, local=True))
    work.chosen, outcome = chosen, finish(work)
    remember(asked(), work, outcome, "")
    assert recall(asked()) is not None
    (image, *_) = sorted((here / "photos").rglob("*.png"))
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    assert recall(asked()) is None
    image.write_bytes(content)
    assert recall(asked()) is not None
    image.with_name("new.png").write_bytes(content)
    assert recall(asked()) is None
    image.parent.rename(here / "elsewhere")
    (here / "photos" / image.parent.name).symlink_to("../elsewhere")
    (here / "photos" / "again").symlink_to("../photos")  # which leads back
    remember(asked(), work, outcome, "")
    assert recall(asked()) is not None
    (here / "elsewhere" / image.name).write_bytes(content + b"\0")
    assert recall(asked()) is None


def test_the_code_of_a_plugin_that_is_one_file_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spot.py").write_text("")
    (tmp_path / "something_else").write_text("")
    (tmp_path / "spot.dist-info").mkdir()
    (tmp_path / "spot.dist-info" / "METADATA").write_text("Name: spot\nVersion: 1\n")
    (tmp_path / "spot.dist-info" / "entry_points.txt").write_text("[glimpsezoo]\nspot = spot\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [path for place in answers._packages() for path in answers._code(place)]
    assert [path for path in found if path.is_relative_to(tmp_path)] == [tmp_path / "spot.py"]


def test_what_files_do_not_decide_is_not_remembered(here: Path) -> None:
    def kept(work: RunWork, outcome: RunOutcome, after: float = LATER) -> bool:
        remember(asked(after), work, outcome, "")
        found = recall(asked()) is not None
        asked().path.unlink(missing_ok=True)
        return found

    work, outcome = finished(here)
    assert kept(work, outcome)
    assert not kept(work, outcome, after=-LATER)  # a file changed after it was asked
    hub = replace(work.chosen, spec=replace(work.chosen.spec, embedded=False))
    assert not kept(replace(work, chosen=hub), outcome)
    assert not kept(replace(work, request=replace(work.request, checkpoint="timm")), outcome)
    failed = outcome.results[0].model_copy(update={"run": outcome.results[0].run.model_copy(update={"status": "failed"})})
    assert not kept(work, replace(outcome, results=(failed,)))
    assert not kept(*finished(here, ("speed",)))


def test_a_question_is_its_options_environment_and_cards(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert question_of(OPTIONS, {}) is None  # code may have been changed in a process that has loaded it
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "argv", ["glimpsezoo", "run", "cnn4"])

    def key(options: dict[str, Any] = OPTIONS, screen: dict[str, Any] | None = None) -> str:
        question = question_of(options, screen or {})
        assert question is not None
        return question.key

    keys = [key()]
    assert key() == keys[0]
    keys += [key({**OPTIONS, "limit": 20}), key(screen={"width": 80})]
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    keys.append(key())
    (here / "zoo_cards" / "cnn4.digits").mkdir()
    (here / "zoo_cards" / "cnn4.digits" / "config.json").write_text("{}")
    keys.append(key())
    (here / "cnn4").mkdir()
    keys.append(key())
    (here / "new-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(here)
    keys.append(key())
    monkeypatch.setattr(sys, "argv", ["glimpsezoo", "run", "cnn4", "--seed", "0"])
    keys.append(key())
    assert len(set(keys)) == len(keys)
    for name in answers.DOES_MORE:
        assert question_of({**OPTIONS, name: True}, {}) is None


def test_thresholds_that_another_process_computes_are_awaited(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, calls, plain = threading.Event(), [], calibration.calibrate

    def slow(*given: Any, **more: Any) -> Any:
        calls.append(1)
        begun.set()
        time.sleep(1)
        return plain(*given, **more)

    monkeypatch.setattr(calibration, "calibrate", slow)
    options: dict[str, Any] = {"models": ("ranzato",), "checkpoint": "none", "data": "digits", "limit": 10, "measures": ("anytime",)}
    first, second = (prepare(RunRequest(**options, device=torch.device("cpu"), force=True)) for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(first.get_ready)
        begun.wait()
        second.get_ready()
        done.result()
    assert len(calls) == 1
