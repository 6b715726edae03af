"""A name that is misspelt is answered before torch is loaded, whatever the command, and with the name that was meant."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import make_card

HEAVY = ("torch", "torchvision", "timm", "datasets", "numpy", "pyarrow", "sklearn")
TYPED = {  # the command -> what its answer names
    "run mgnt": "'mgnet'",
    "run cnn4.digts": "'cnn4.digits'",
    "run mgnet --data digit": "'digits'",
    "run mgnet --measure acuracy": "'accuracy'",
    "run mgnet --measure accuracy,fgo:3": "'fog'",
    "run mgnet --measure stronger-atacks": "'stronger-attacks'",
    "run mgnet --checkpoint cnn4.digts": "'cnn4.digits'",
    "run mgnet --set glimpse=3": "'glimpses'",
    "run mgnet --set mgnet.glimpse=3": "'glimpses'",
    "run mgnet --data digits --set data.sed=3": "'seed'",
    "run mgnet --limt 3": "'--limit'",
    "train mgnt": "'mgnet'",
    "train mgnet --data digit": "'digits'",
    "train mgnet --recipe mgnet.digts": "'mgnet.digits'",
    "train mgnet --set glimpse=3": "'glimpses'",
    "train mgnet --set data.sed=3": "'seed'",
    "train mgnet --set train.ephocs=3": "'epochs'",
    "trace mgnt": "'mgnet'",
    "trace mgnet --data digit": "'digits'",
    "trace mgnet --under fgo": "'fog'",
    "trace mgnet --under pdg:4/255": "'pgd'",
    "predict mgnt seven.png": "'mgnet'",
    "predict mgnet seven.png --set glimpse=3": "'glimpses'",
    "check mgnt": "'mgnet'",
    "check mgnet --data digit": "'digits'",
    "show mgnt": "'mgnet'",
    "list modles": "'models'",
    "compare cnn4.digts": "'cnn4.digts'",
    "compare --paper mgnet-2012": "'mgnet-2021'",
    "report cnn4.digts": "'cnn4.digts'",
    "push cnn4.digts me/cnn4": "'cnn4.digits'",
    "pull cnn4.digits": "'cnn4.digits'",
    "import mgnt weights.ckpt -o card": "'mgnet'",
    "import mgnet weights.ckpt -o card --data digit": "'digits'",
}
ALL_OF_THEM = f"""
import contextlib, io, json, sys
from glimpsezoo.commands import main
answers = {{}}
for command in {list(TYPED)}:
    said, status = io.StringIO(), None
    with contextlib.redirect_stderr(said):
        try:
            main(command.split())
        except SystemExit as end:
            status = end.code
    answers[command] = (status, said.getvalue(), [name for name in {HEAVY} if name in sys.modules])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """What each command answers in a process of its own kind: status, standard error and the heavy modules that are loaded."""
    folder = tmp_path_factory.mktemp("typed")
    make_card(folder / "zoo_cards" / "cnn4.digits")
    done = subprocess.run([sys.executable, "-c", ALL_OF_THEM], capture_output=True, text=True, check=True, cwd=Path(folder))
    return json.loads(done.stdout)


@pytest.mark.parametrize(("command", "meant"), TYPED.items(), ids=TYPED)
def test_a_typing_error_is_answered_before_anything_heavy_is_loaded(
    answers: dict[str, tuple[int, str, list[str]]], command: str, meant: str
):
    status, said, heavy = answers[command]
    assert (status, heavy) == (2, [])
    assert said.startswith("glimpsezoo: ")
    assert said.count("\n") == 1
    assert meant in said
