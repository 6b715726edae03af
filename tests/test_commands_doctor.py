"""`glimpsezoo doctor`: what is installed and what works, a line each."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Answer
from hub_client import Client
from hub_server import TOKEN, HubServer
from installed_plugins import installed

BROKEN = """
[project]
name = "glimpsezoo-broken"
version = "0.3"
[project.entry-points.glimpsezoo]
broken = "broken_of_doctor"
"""


def found(answer: Answer) -> dict[str, tuple[str, bool]]:
    return {line["subject"]: (line["found"], line["wrong"]) for line in json.loads(answer.out)}


def test_it_names_versions_plugins_devices_and_the_disk(say: Callable[..., Answer]):
    answer = say("doctor", "--json")
    lines = found(answer)
    assert answer.status == 0, lines
    assert torch.__version__.partition("+")[0] in lines["packages"][0]
    assert lines["plugin glimpsezoo-mgnet"][0].startswith("0.1.0, registers 4 names")
    assert {"python", "cpu", "threads", "hub", "cards and units", "hub cache", "extra frost"} <= set(lines)
    text = say("doctor").out
    assert all(f"{subject}: " in text for subject in lines)


def test_a_broken_plugin_is_named_and_is_the_exit_status(say: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pyproject.toml").write_text(BROKEN)
    (tmp_path / "broken_of_doctor.py").write_text("import nothing_of_this_name")
    with installed(tmp_path, monkeypatch):
        answer = say("doctor", "--json")
    assert answer.status == 1
    assert "nothing_of_this_name" in found(answer)["plugin glimpsezoo-broken"][0]
    assert [subject for subject, (_, wrong) in found(answer).items() if wrong] == ["plugin glimpsezoo-broken"]


def test_a_folder_that_cannot_be_written_is_named(say: Callable[..., Answer], here: Path, monkeypatch: pytest.MonkeyPatch):
    (here / "home").write_text("a file")
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(here / "home"))
    answer = say("doctor", "--json")
    assert answer.status == 1
    said, wrong = found(answer)["cards and units"]
    assert wrong
    assert "set GLIMPSEZOO_HOME to a folder that can" in said
    assert "--output" not in said


def test_the_hub_answers_or_not_and_the_token_is_not_shown(hub: HubServer, client: Client):
    up = client.command("doctor", "--json", HF_TOKEN=TOKEN)
    assert f"{hub.url} answers" in found(up)["hub"][0]
    assert TOKEN not in up.out + up.err
    down = client.command("doctor", "--json", HF_ENDPOINT="http://127.0.0.1:9", no_proxy="*")
    assert "does not answer" in found(down)["hub"][0]
    assert down.status == 0
    off = client.command("doctor", "--json", HF_HUB_OFFLINE="1")
    assert "offline" in found(off)["hub"][0]


@pytest.mark.parametrize(("given", "found"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "")])
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(given: dict[str, str], found: str):
    """Beside other programs, threads that keep their cores busy wait many times as long."""
    ask = "import os, sys; from glimpsezoo.commands import program; sys.argv[1:] = ['--version']\ntry: program()\nfinally: "
    ask += "print(os.environ.get('GOMP_SPINCOUNT', ''), file=sys.stderr)"
    mine = {name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    done = subprocess.run([sys.executable, "-c", ask], env=mine | given, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == found
