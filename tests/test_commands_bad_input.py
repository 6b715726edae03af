"""Bad input gets one clear line (expected, got, what to do), exit status 2, nothing on standard output and nothing half-written.

Cards: test_commands_bad_card.py.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import RECIPE, TINY, Answer, ask, make_card, one_line, tree

from glimpsezoo.zoo.cards import Card

Refuse = Callable[..., str]
UNTRAINED = ("--checkpoint", "none")


@pytest.fixture
def card(here: Path) -> Card:
    return make_card(here / "zoo_cards" / "cnn4.digits")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("run", "hf-hub:a/b", "--update-card"), ("--update-card expects cards in local folders", "on the Hub", "pull")),
        (("run", "mgnt"), ("expected a model or a card, got 'mgnt'", "did you mean 'mgnet'")),
        (("run", "cnn4", "nothing/here.digits"), ("got 'nothing/here.digits'",)),
        (("run",), ("expected a model to measure, got none", "try 'glimpsezoo run mgnet'")),
        (("run", "cnn4", "cnn4"), ("expected each model once, got cnn4 cnn4",)),
        (("run", "cnn4", "--data", "digit"), ("expected the name of a data set, got 'digit'", "did you mean 'digits'?")),
        (("run", "cnn4", "--data-dir", "nowhere", *UNTRAINED), ("--data-dir expects a folder, got 'nowhere'",)),
        (("run", "cnn4", "--measure", "accuracyy"), ("--measure expects any of accuracy, flops", "did you mean 'accuracy'?")),
        (("run", "cnn4", "--measure", ""), ("--measure expects", "got ''")),
        (("run", "cnn4", "--split", "tset"), ("--split expects one of train, calibration, test, got 'tset'", "did you mean 'test'?")),
        (("run", "cnn4", "--split", "tset", "--measure", "flops", *UNTRAINED), ("--split expects", "got 'tset'")),
        (("run", "cnn4"), ("expected a trained card of 'cnn4' for 'digits', got none", "train cnn4 --data digits", "--checkpoint none")),
        (("run", "cnn4", "--checkpoint", "best"), ("--checkpoint expects 'none', 'timm', a card or a file of weights, got 'best'",)),
        (("run", "cnn4", "--checkpoint", "timm"), ("has no published weights",)),
        (("run", "cnn4", "--update-card", *UNTRAINED), ("--update-card expects trained cards",)),
        (("run", "mgnet", *UNTRAINED, "--set", "backbone=resnet19"), ("got 'resnet19'", "'resnet18'")),
        (("run", "timm:resnet19", *UNTRAINED), ("got 'resnet19'", "'resnet18'")),
        (("run", "mgnet", *UNTRAINED, "--set", "glimpse=2"), ("--set glimpse expects a setting of mgnet", "did you mean 'glimpses'?")),
        (("run", "mgnet", *UNTRAINED, "--set", "mgnet.glimpse=2"), ("mgnet has no setting 'glimpse'", "did you mean 'glimpses'?")),
        (("run", "cnn4", *UNTRAINED, "--set", "mgnet.glimpses=2"), ("--set mgnet.glimpses expects a setting of cnn4",)),
        (("run", "cnn4", *UNTRAINED, "--set", "data.sed=2"), ("data has no setting 'sed'", "did you mean 'seed'?")),
        (("run", "cnn4", *UNTRAINED, "--measure", "flops", "--set", "data.sed=2"), ("data has no setting 'sed'",)),
        (("run", "cnn4", *UNTRAINED, "--set", "train.lr=2"), ("--set train.lr expects a setting of cnn4",)),
        (("run", "mgnet", *UNTRAINED, "--set", "glimpses"), ("--set expects key=value, got 'glimpses'",)),
        (("run", "mgnet", *UNTRAINED, "--set", "glimpses=two"), ("--set glimpses=two for mgnet", "valid integer")),
        (("run", "mgnet", *UNTRAINED, "--set", "glimpses=0"), ("--set glimpses=0 for mgnet", "greater than or equal to 1")),
        (("run", "mgnet", *UNTRAINED, "--set", "policy=blind"), ("--set policy=blind for mgnet", "the name of a policy", "coarse-to-fine")),
        (("run", "mgnet", *UNTRAINED, "--set", "policy=randm"), ("--set policy=randm for mgnet", "did you mean 'random'")),
        (("run", "cnn4", *UNTRAINED, "--set", "data.seed=x"), ("--set seed=x for data", "valid integer")),
        (("run", "cnn4", *UNTRAINED, "--set", f"data.seed={10**30}"), ("for data", "less than")),
        (("run", "cnn4", *UNTRAINED, "--limit", "0"), ("--limit expects a number of images from 1, got 0",)),
        (("run", "cnn4", *UNTRAINED, "--limit", "0", "--measure", "flops"), ("--limit expects", "got 0")),
        (("run", "cnn4", *UNTRAINED, "--limit", "all"), ("'--limit'", "'all'", "glimpsezoo run --help")),
        (("run", "cnn4", *UNTRAINED, "--batch-size", "0"), ("--batch-size expects a number of images from 1, or 'auto', got '0'",)),
        (("run", "cnn4", *UNTRAINED, "--batch-size", "some"), ("--batch-size expects", "got 'some'")),
        (("run", "cnn4", *UNTRAINED, "--batch-size", "9" * 5000), ("--batch-size expects", "got '9999")),
        (("run", "cnn4", *UNTRAINED, "--engine", f"processes:{'9' * 5000}"), ("--engine expects", "got 'processes:9999")),
        (("trace", "cnn4", "--index", "9" * 5000), ("--index expects numbers from 0", "got '9999")),
        (("trace", "cnn4", "--index", "0-99999999999"), ("--index expects at most 1,000 images", "'0-99999999999'")),
        (("run", "cnn4", *UNTRAINED, "--device", "tpu9"), ("expected a device of this machine", "got 'tpu9'")),
        (("run", "cnn4", *UNTRAINED, "--device", "meta"), ("expected a device of this machine", "got 'meta'")),
        (("run", "cnn4", *UNTRAINED, "--seed", "-1"), ("'--seed'", "-1", "glimpsezoo run --help")),
        (("run", "cnn4", *UNTRAINED, "--workers", "-1"), ("'--workers'", "-1")),
        (("run", "cnn4", *UNTRAINED, "--on-bad-image", "weep"), ("'--on-bad-image'", "'weep'", "fail", "skip")),
        (("run", "cnn4", "--data", "folder:nowhere", "--measure", "flops", *UNTRAINED), ("got nowhere", "folder:PATH")),
        (("rnu", "cnn4"), ("expected a command, got 'rnu'", "did you mean 'run'?")),
        (("run", "cnn4", "--limits", "3"), ("expected an option, got '--limits' (did you mean '--limit'", "see 'glimpsezoo run --help'")),
        (("train",), ("MODEL", "glimpsezoo train --help")),
        (("train", "cnn5"), ("expected the name of a model, got 'cnn5'", "did you mean 'cnn4'?")),
        (("train", "cnn4", "--data", "digitss"), ("digitss", "did you mean")),
        (("train", "cnn4", "--recipe", "mine.toml"), ("--recipe expects a TOML file, or a recipe of cnn4, got 'mine.toml'",)),
        (("import", "mgnet", "no.ckpt", "-o", "card"), ("expected a checkpoint file, got 'no.ckpt'",)),
        (("import", "cnn4", "no.ckpt", "-o", "card"), ("got 'cnn4'", "list importers", "docs/importing.md")),
        (("list", "modles"), ("got 'modles'", "did you mean 'models'")),
        (("list", "models", "mgnt*"), ("got 'mgnt*'", "did you mean 'mgnet'")),
        (("list", "models", "mgnt*", "--json"), ("got 'mgnt*'",)),
        (("show", "mgnt"), ("expected a model, a data set or a card, got 'mgnt'", "did you mean 'mgnet'")),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_a_wrong_word_is_named_with_what_was_expected(refused: Refuse, words: tuple[str, ...], parts: tuple[str, ...]):
    line = refused(*words)
    for part in parts:
        assert part in line


def test_an_output_folder_that_cannot_be_written(card: Card, refused: Refuse, here: Path):
    """Below a regular file nobody can write, root neither."""
    (here / "file").write_text("")
    assert "expected an output folder that can be written, got 'file/below'" in refused("run", "cnn4", "-o", "file/below")
    assert "got 'file'" in refused("run", "cnn4", "-o", "file")
    (here / "tiny.toml").write_text(RECIPE)
    line = refused("train", "mgnet", "--recipe", "tiny.toml", *TINY, "-o", "file/below")
    assert "expected an output folder that can be written, got 'file/below'" in line
    assert "choose another --output" in line


def test_finished_units_that_cannot_be_kept_in_runs_go_to_the_output(card: Card, refused: Refuse, here: Path, say: Callable[..., Answer]):
    (here / "runs").write_text("")
    assert "expected an output folder that can be written, got 'runs/" in refused("run", "cnn4", "--limit", "3")
    answer = say("run", "cnn4", "--limit", "3", "-o", "elsewhere")
    assert answer.status == 0
    assert "kept in elsewhere/.units, because runs/ cannot be written" in answer.err
    assert "1 unit measured, 0 reused" in answer.err
    assert "0 units measured, 1 reused" in say("run", "cnn4", "--limit", "3", "-o", "elsewhere").err


def _as_an_ordinary_user() -> None:
    """Without root's right to write and read everywhere, from the next program on (PR_CAPBSET_DROP)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are taken away as Linux does it")
def test_a_working_folder_and_a_home_that_are_read_only(tmp_path: Path):
    """With -o, everything works there; without, one line says so. Nothing is asked of a home that this user may not enter."""
    work, out, home = tmp_path / "work", tmp_path / "out", tmp_path / "home"
    for folder in (work, home):
        folder.mkdir()
    work.chmod(0o555)
    home.chmod(0o000)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "glimpsezoo", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=work,
            env={**os.environ, "HOME": str(home), "GLIMPSEZOO_HOME": str(home)},
            preexec_fn=_as_an_ordinary_user,
        )

    done = run("run", "cnn4", "--checkpoint", "none", "--limit", "5", "--measure", "accuracy", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert (out / "cnn4" / "result.json").is_file()
    without = run("run", "cnn4", "--checkpoint", "none", "--limit", "5", "--measure", "accuracy")
    assert "(Permission denied): choose another --output" in one_line(Answer(without.returncode, without.stdout, without.stderr))
    assert list(work.iterdir()) == []
    for folder in (work, home):
        folder.chmod(0o755)


def test_results_of_another_run_stay_where_the_new_one_is_refused(refused: Refuse, here: Path):
    kept = here / "taken" / "cnn4" / "result.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"run": {"id": "another"}}))
    words = ("run", "cnn4", *UNTRAINED, "--limit", "5", "--measure", "accuracy", "-o", "taken", "--force")
    refused(*words, "--store", "s3://me:secret@bucket")
    assert kept.is_file()


def test_an_output_folder_of_another_run(refused: Refuse, here: Path):
    for content in (json.dumps({"run": {"id": "another"}}), "[]", "no json"):
        (here / "taken" / "cnn4").mkdir(parents=True, exist_ok=True)
        (here / "taken" / "cnn4" / "result.json").write_text(content)
        line = refused("run", "cnn4", *UNTRAINED, "--measure", "flops", "-o", "taken")
        assert "expected a folder of this run, got 'taken'" in line
        assert "choose another --output, or --force" in line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--set", "train.epoch=1"), ("of a recipe or of its phases, got 'train.epoch'", "did you mean 'epochs'?")),
        (("--set", "train.epochs=none_at_all"), ("epochs", "integer")),
        (("--set", "train.lr=-1"), ("lr", "greater than 0")),
        (("--set", f"train.seed={10**30}"), ("seed", "less than")),
        (("--seed", "1", "--set", "train.seed=2"), ("either --seed or --set train.seed, got both: leave one out",)),
        (("--epochs", "1", "--set", "train.steps=2"), ("either --epochs or --set train.steps, got both: leave one out",)),
        (("--set", "glimpse=1"), ("--set glimpse expects a setting of mgnet", "did you mean 'glimpses'?")),
        (("--set", "data.sed=1"), ("data has no setting 'sed'",)),
        (("--data", "imagenet"), ("imagenet",)),
        (("--seed", "x"), ("'--seed'", "'x'")),
        (("-o", "zoo_cards/cnn4.digits"), ("without a card, got 'zoo_cards/cnn4.digits' with one", "--force to train it again")),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_a_training_that_cannot_start(card: Card, refused: Refuse, here: Path, words: tuple[str, ...], parts: tuple[str, ...]):
    (here / "tiny.toml").write_text(RECIPE)
    line = refused("train", "mgnet", "--recipe", "tiny.toml", *TINY, *words)
    for part in parts:
        assert part in line


def test_a_recipe_file_that_is_none(refused: Refuse, here: Path):
    (here / "bad.toml").write_bytes(b"\xff\xfe")
    assert "--recipe expects a TOML file, or a recipe of cnn4, got 'bad.toml'" in refused("train", "cnn4", "--recipe", "bad.toml")
    assert "--recipe expects a TOML file, or a recipe of cnn4, got 'zoo_cards'" in refused("train", "cnn4", "--recipe", "zoo_cards")
    (here / "bad.toml").write_text("batch_size = ")
    assert "TOML, got bad.toml (" in refused("train", "cnn4", "--recipe", "bad.toml")


def test_a_recipe_s_name_and_other_data(refused: Refuse):
    line = refused("train", "mgnet.tiny-imagenet", "--data", "digits")
    assert "expected --data tiny-imagenet, the data of the recipe 'mgnet.tiny-imagenet', got 'digits'" in line


def test_a_checkpoint_that_is_damaged(refused: Refuse, here: Path):
    (here / "tiny.toml").write_text(RECIPE)
    (here / "mine").mkdir()
    (here / "mine" / "checkpoint.pt").write_bytes(b"half a checkpoint")
    line = refused("train", "mgnet", "--recipe", "tiny.toml", *TINY, "-o", "mine")
    assert "checkpoint in mine, got a damaged one" in line


def test_what_is_imported_must_be_a_checkpoint_of_that_model(card: Card, refused: Refuse, here: Path):
    (here / "x.ckpt").write_bytes(b"nothing")
    assert "x.ckpt" in refused("import", "mgnet", "x.ckpt", "-o", "new")
    torch.save({"state_dict": {"model.other": torch.zeros(1)}}, here / "y.ckpt")
    line = refused("import", "mgnet", "y.ckpt", "-o", "new")
    assert "tensor 'global_fc.fc.weight'" in line
    assert "got y.ckpt with 'state_dict.model.other'" in line
    line = refused("import", "mgnet", "x.ckpt", "-o", "zoo_cards/cnn4.digits")
    assert "without a card, got 'zoo_cards/cnn4.digits' with one" in line
    assert "--set data.seed expects the data that the weights were trained on, got none: add --data NAME" in refused(
        "import", "mgnet", "x.ckpt", "-o", "new", "--set", "data.seed=1"
    )


def test_an_imported_checkpoint_that_does_not_fit(refused: Refuse, here: Path, monkeypatch: pytest.MonkeyPatch):
    """An importer that forgot a tensor: nothing is written."""
    import glimpsezoo_mgnet.importer as importer

    import glimpsezoo as gz

    model = gz.create_model("mgnet", data="digits")
    tensors = {name: value for name, value in model.state_dict().items() if name != "norm.bias"}
    monkeypatch.setattr(importer, "importer", lambda checkpoint, settings: (model.config, model.task, tensors, []))
    (here / "x.ckpt").write_bytes(b"")
    assert "in which tensor norm.bias is missing" in refused("import", "mgnet", "x.ckpt", "-o", "new")


def test_what_nobody_foresaw_is_one_line_too_and_a_traceback_only_with_debug(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def broken(name: str) -> None:
        raise ZeroDivisionError("three\nlines\nof text")

    monkeypatch.setattr("glimpsezoo.zoo.cards.find_card", broken)
    answer = ask(capsys, "show", "cnn4")
    assert (answer.status, answer.out) == (1, "")
    assert (
        answer.err == "glimpsezoo: unexpected ZeroDivisionError (three lines of text): repeat the command with --debug for the traceback\n"
    )
    assert "Traceback" in ask(capsys, "show", "cnn4", "--debug").err


BROKEN = {
    "empty": b"",
    "text": "hällo ✓\n".encode(),
    "binary": bytes(range(256)),
    "list": b"[1, 2]",
    "null": b"null",
    "deep": b"[" * 20_000,
    "utf-16": "{}".encode("utf-16"),
    "zip": b"PK\x03\x04 cut",
    "toml": b"batch_size = 2\nphase = 3\n",
    "folder": None,
}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_no_file_is_unexpected(card: Card, here: Path, say: Callable[..., Answer], kind: str):
    """Whatever a file is, it is one line that says what is wrong with it: as a checkpoint, an image, a recipe, a card or a result."""
    content = BROKEN[kind]

    def put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)

    put(here / "file")
    put(here / "broken" / "config.json")
    put(here / "result" / "result.json")
    put(here / "training" / "checkpoint.pt")
    put(card.folder / "training.jsonl")
    put(card.folder / "result.json")
    for words in (
        ("import", "mgnet", "file", "-o", "new"),
        ("import", "timm:mobilenetv3_small_050", "file", "-o", "new"),
        ("trace", "cnn4", "--image", "file"),
        ("trace", "cnn4", "--checkpoint", "file"),
        ("train", "cnn4", "--recipe", "file"),
        ("train", "cnn4", "-o", "training"),
        ("run", "broken"),
        ("show", "file"),
        ("check", "broken"),
        ("push", "broken", "a/b"),
        ("compare", "result"),
        ("compare", "cnn4.digits"),
        ("report", "result"),
    ):
        answer = say(*words)
        assert answer.status == 2, words
        assert not answer.err.startswith("glimpsezoo: unexpected")
        assert answer.err.count("\n") == 1, answer.err


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_no_setting_is_infinite(refused: Refuse, text: str):
    assert f"--set alpha={text} for mgnet" in refused("run", "mgnet", *UNTRAINED, "--set", f"alpha={text}")


def test_the_system_s_answer_about_a_file_is_no_fault_of_ours(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def locked(name: str) -> None:
        raise PermissionError(13, "Permission denied", "secret/config.json")

    monkeypatch.setattr("glimpsezoo.zoo.cards.find_card", locked)
    line = one_line(ask(capsys, "show", "cnn4"))
    assert "expected a file or folder that can be used, got 'secret/config.json' (Permission denied)" in line


def test_debug_shows_the_traceback_above_the_one_line(here: Path, capsys: pytest.CaptureFixture[str]):
    answer = ask(capsys, "run", "mgnt", "--debug")
    assert answer.status == 2
    assert answer.err.startswith("Traceback")
    assert answer.err.splitlines()[-1].startswith("glimpsezoo: expected a model or a card, got 'mgnt'")


@pytest.mark.parametrize(
    ("words", "part"),
    [(("run", "cnn4.digits"), "another sha256"), (("list", "--colour"), "--colour")],
    ids=["hash", "option"],
)
def test_the_real_command_says_the_same(card: Card, here: Path, words: tuple[str, ...], part: str):
    (card.folder / "model.safetensors").write_bytes(b"other")
    before = tree(here)
    done = subprocess.run(
        [sys.executable, "-m", "glimpsezoo", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=here,
        env=os.environ | {"COLUMNS": "40"},
    )
    assert part in one_line(Answer(done.returncode, done.stdout, done.stderr))
    assert tree(here) == before
