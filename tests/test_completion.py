"""`completion`: real shells complete commands, options and the names of what is installed, and nothing heavy is loaded for that."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer, make_card
from test_layers import HEAVY

SHELLS = ("bash", "zsh", "fish")
CASES = {  # what is typed -> some of what is offered, and what is not
    "ru": (["run"], ["report"]),
    "run --pre": (["--precision"], ["--data"]),
    "run mgnet.di": (["mgnet.digits"], ["mgnet", "cnn4.digits"]),
    "run mgnet --data tm": (["tmnist"], ["digits"]),
    "run mgnet --measure accuracy,fl": (["accuracy,flops"], ["accuracy"]),
    "run mgnet --checkpoint ti": (["timm"], ["none"]),
    "train mgnet.tmnist.w": (["mgnet.tmnist.wide"], ["mgnet.digits"]),
    "trace mgnet --under gaussian_n": (["gaussian_noise"], ["fog"]),
    "list data tm": (["tmnist"], ["mgnet"]),
    "check --data gt": (["gtmnist"], ["digits"]),
}
DRIVERS = {  # a script of the shell that prints what it offers; {} is what is typed
    "bash": """
source ./script 2>&1
COMP_WORDS=(glimpsezoo {}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
compopt() {{ :; }}
_glimpsezoo_completion glimpsezoo
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "zsh": """
autoload -U compinit && compinit -D -u
source ./script
words=(glimpsezoo {}); CURRENT=${{#words}}
compadd() {{ print -l ${{(P)@[-1]}} }}
_describe() {{ print -l ${{${{(P)3}}%%:*}} }}
_path_files() {{ : }}
_glimpsezoo_completion; true
""",
    "fish": """
source ./script
complete -C "glimpsezoo {}"
""",
}

Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two cards, and a command `glimpsezoo` that is this one."""
    made = tmp_path_factory.mktemp("shell")
    for name, model in (("mgnet.digits", "mgnet"), ("cnn4.digits", "cnn4")):
        make_card(made / "zoo_cards" / name, model)
    (made / "bin").mkdir()
    command = made / "bin" / "glimpsezoo"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m glimpsezoo "$@"\n')
    command.chmod(0o755)
    return made


def offered(shell: str, folder: Path, typed: str) -> list[str]:
    """What a shell offers for a command that is half typed, in the folder with the script."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    words = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}[shell]
    done = subprocess.run(
        [shell, *words, DRIVERS[shell].format(typed)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PATH": path, "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]  # fish adds what it is


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_options_and_names(say: Ask, folder: Path, shell: str):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    answer = say("completion", shell)
    assert (answer.status, answer.err) == (0, "")
    (folder / "script").write_text(answer.out)
    cases = CASES if shell == "bash" else {typed: CASES[typed] for typed in ("ru", "run mgnet.di")}
    for typed, (there, absent) in cases.items():
        found = offered(shell, folder, typed)
        assert set(there) <= set(found), typed
        assert not set(absent) & set(found), typed


def test_an_unknown_shell_and_an_unknown_command_are_no_traceback(say: Ask, folder: Path):
    assert "'tcsh'" in say("completion", "tcsh").err
    (folder / "script").write_text(say("completion", "bash").out)
    assert offered("bash", folder, "nothing mgn") == [""]


def test_nothing_heavy_is_loaded_to_complete_a_name(folder: Path):
    script = f"""
import atexit, sys
atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr))
from glimpsezoo.commands import main
main()
"""
    for typed in ("run mgnet.di", "run mgnet --data t", "run mgnet --measure a", "compare c"):
        words = ["glimpsezoo", *typed.split()]
        environment = os.environ | {
            "_GLIMPSEZOO_COMPLETE": "bash_complete",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=folder, env=environment)
        assert "plain," in done.stdout, typed
        assert done.stderr == "[]\n", typed
