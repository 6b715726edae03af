"""`list`, `show`, `plugins` and the bare command: what is there, for people and as JSON."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import COMMANDS, Answer, make_card, rewrite

from glimpsezoo.specs import ModelSpec, Provenance
from glimpsezoo.zoo.plugins import LoadedPlugin, Registry, registry

Ask = Callable[..., Answer]


def test_the_bare_command_is_help(say: Ask):
    answer = say()
    assert (answer.status, answer.err) == (0, "")
    assert answer.out == say("--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_s_help_has_an_example_and_its_first_sentence_is_in_the_list_of_commands(say: Ask, name: str):
    answer = say(name, "--help")
    assert answer.status == 0
    assert answer.out.startswith(f"Usage: glimpsezoo {COMMANDS[name].name} ")
    assert f"  glimpsezoo {name}" in answer.out.replace("Usage: glimpsezoo", "")
    listed = next(line for line in say("--help").out.splitlines() if line.startswith(f"  {name} "))
    assert listed.split(maxsplit=1) == [name, COMMANDS[name].get_short_help_str(limit=100)]


@pytest.mark.usefixtures("terminal")
def test_list_shows_every_kind_in_100_columns(say: Ask, here: Path):
    make_card(here / "zoo_cards" / "cnn4.digits")
    answer = say("list")
    assert (answer.status, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) <= 100
    headings = [
        line.strip()
        for line in answer.out.splitlines()
        if line.strip() in {"models", "cards", "data", "recipes", "exit-rules", "policies", "importers"}
    ]
    assert headings == ["models", "cards", "data", "recipes", "exit-rules", "policies", "importers"]
    assert "cnn4 trained on digits, 0.43 MB" in answer.out
    assert ": see 'glimpsezoo list recipes'" in answer.out
    assert "mgnet.digits " in say("list", "recipes").out
    assert "\nrecipes " in say("list", "mgnet*").out  # those that a pattern matches are listed


def test_wildcards_choose_names(say: Ask):
    names = [row["name"] for row in say("list", "models", "mgnet*", "--json").json["models"]]
    assert names == ["mgnet"]
    assert {row["name"] for row in say("list", "models", "*net?[!x]*", "--json").json["models"]} >= {"pyramid-imagenet-m1"}
    everything = say("list", "--json").json
    assert [row["name"] for row in everything["models"]].count("timm:NAME") == 1
    assert {"digits", "hf:NAME"} <= {row["name"] for row in everything["data"]}
    assert {kind: [row["name"] for row in rows] for kind, rows in say("list", "exit-rules", "--json").json.items()} == {
        "exit-rules": ["fixed", "confidence", "margin", "entropy", "patience"]
    }


def test_in_a_pipe_a_list_is_one_name_per_line(say: Ask, here: Path):
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet")
    answer = say("list", "mgnet*")
    names = answer.out.splitlines()
    assert (answer.status, answer.err) == (0, "")
    assert names[:2] == ["mgnet", "mgnet.digits"]  # a model, and a card with the name of a recipe
    assert "mgnet.tmnist.wide" in names  # a recipe
    assert len(set(names)) == len(names)
    assert all(name.startswith("mgnet") and " " not in name for name in names)
    assert say("list", "cards").out == "mgnet.digits\n"
    assert say("list", "models", "mgnet*", "-q").out == "mgnet\n"
    assert say("list", "*[!x]gnet*").out == answer.out  # wildcards of any kind


@pytest.mark.usefixtures("terminal")
def test_names_alone_are_printed_on_a_terminal_by_q(say: Ask):
    assert say("list", "exit-rules", "-q").out.splitlines() == ["fixed", "confidence", "margin", "entropy", "patience"]
    assert "  Every image takes all steps." in say("list", "exit-rules").out
    assert say("plugins", "-q").out.splitlines()[:2] == ["builtin", "adaptivenn"]


def test_show_names_the_settings_by_q(say: Ask, here: Path):
    card = make_card(here / "zoo_cards" / "mgnet.digits", "mgnet")
    names = say("show", "mgnet", "-q").out.splitlines()
    assert {"glimpses", "backbone"} < set(names)
    assert say("show", "mgnet.digits", "-q").out.splitlines() == list(card.config.config)
    assert "seed" in say("show", "digits", "-q").out.splitlines()


def test_in_a_pipe_plugins_are_names_and_what_is_broken_is_on_standard_error(say: Ask, monkeypatch: pytest.MonkeyPatch):
    sick = LoadedPlugin(Provenance("sick", "a-sick-one", "1.0"), error="cannot be imported: no [bold]torch[/]")
    monkeypatch.setattr("glimpsezoo.zoo.plugins.registry", lambda: Registry([*registry().plugins, sick]))
    answer = say("plugins")
    assert answer.out.splitlines()[-2:] == ["timm", "sick"]
    *absent, broken = answer.err.splitlines()
    assert broken == "broken: sick: cannot be imported: no [bold]torch[/]"
    without = [p.provenance.plugin for p in registry().plugins if any(spec.unavailable for spec in p.specs)]
    assert [line.split(": ")[:2] for line in absent] == [["unavailable", name] for name in without]


def test_a_recipe_says_what_it_trains(say: Ask):
    rows = {row["name"]: row["description"] for row in say("list", "recipes", "--json").json["recipes"]}
    assert rows["cnn4.digits"] == "The small CNN on handwritten digits, at the full 64 x 64: MGNet's feed-forward baseline."
    assert rows["pyramid-imagenet-bl1.imagenet.32"].endswith(".")  # two lines of comment
    assert all(rows.values())


def test_no_cards_is_no_error(say: Ask):
    answer = say("list", "cards")
    assert (answer.status, answer.out) == (0, "")
    assert answer.err == "no cards yet: train one ('glimpsezoo train mgnet --data digits')\n"
    assert say("list", "cards", "--json").json == {"cards": []}


def test_a_broken_card_is_one_row(say: Ask, here: Path):
    make_card(here / "zoo_cards" / "a.digits", "cnn4")
    rewrite(make_card(here / "zoo_cards" / "b.digits"), weights=None)
    make_card(here / "zoo_cards" / "e[red].digits", "cnn4")
    assert "e[red].digits" in say("list", "cards").out
    rewrite(make_card(here / "zoo_cards" / "c.digits"), weights=None, hub="somebody/cnn4")
    make_card(here / "zoo_cards" / "d.digits").folder.joinpath("config.json").write_text("{")
    rows = {row["name"]: row["description"] for row in say("list", "cards", "--json").json["cards"]}
    assert rows["a.digits"] == "cnn4 trained on digits, 0.43 MB"
    assert rows["b.digits"] == "cnn4 trained on digits, no weights"
    assert rows["c.digits"] == "cnn4 trained on digits, weights on the Hub (somebody/cnn4)"
    assert rows["d.digits"].startswith("BROKEN: expected a valid config.json in the card 'd.digits'")


def test_show_tells_a_model_s_settings(say: Ask):
    lines = say("show", "mgnet").out.splitlines()
    assert any(line.split() == ["glimpses", "integer", "4"] or line.startswith("glimpses  ") for line in lines)
    assert any("digits: backbone=cnn4, downsample=4" in line for line in lines)
    facts = say("show", "mgnet", "--json").json
    scale = next(setting for setting in facts["settings"] if setting["key"] == "scale")
    assert (scale["type"], scale["default"], scale["required"]) == ("number,number", [0.2, 0.5], False)
    assert "a_min and a_max of equation 4" in scale["meaning"]
    assert all(setting["meaning"] for setting in facts["settings"])


def test_show_tells_what_a_prefix_answers_for(say: Ask):
    assert say("show", "timm:resnet18", "--json").json["model"] == "timm:resnet18"
    assert "cannot reach the Hub for somebody/images" in say("show", "hf:somebody/images").err


def test_show_tells_a_data_set_s_card(say: Ask):
    facts = say("show", "digits", "--json").json
    assert facts["splits"] == {"train": 1084, "calibration": 585, "test": 2980}
    assert (facts["image size"], facts["classes"]) == ("64 x 64, 1 channel(s)", 10)
    out = say("show", "digits").out
    assert "calibration: 585" in out
    assert max(map(len, out.splitlines())) <= 100


def test_show_tells_a_card_before_and_after_it_is_measured(say: Ask, here: Path):
    card = make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2)
    out = say("show", "mgnet.digits").out
    assert "glimpses=2" in out
    assert "not measured yet" in out
    assert say("show", "mgnet.digits", "--json").json == card.config.model_dump(mode="json")
    measured = say("run", "mgnet", "--update-card", "--json").json["results"][0]
    out = say("show", "mgnet.digits").out
    assert f"{100 * measured['accuracy']['top1']['value']:.1f} % (" in out
    assert "on digits test" in out


@pytest.mark.usefixtures("terminal")
def test_plugins_names_what_is_broken_and_what_clashes(say: Ask, monkeypatch: pytest.MonkeyPatch):
    ours = registry().plugins
    twin = ModelSpec(name="cnn4", description="", model="a:B", config="a:C", provenance=Provenance("twin", "a-twin", "2.0"))
    made = [
        *ours,
        LoadedPlugin(Provenance("twin", "a-twin", "2.0"), specs=(twin,)),
        LoadedPlugin(Provenance("sick", "a-sick-one", "1.0"), error="cannot be imported: no [bold]torch[/]"),
    ]
    monkeypatch.setattr("glimpsezoo.zoo.plugins.registry", lambda: Registry(made))
    answer = say("plugins")
    assert answer.status == 0
    assert "BROKEN: cannot be imported: no [bold]torch[/]" in answer.out
    assert "clash: the model 'cnn4' is registered by glimpsezoo-mgnet" in answer.err
    printed = say("plugins", "--json").json
    assert printed["plugins"][-1]["error"] == "cannot be imported: no [bold]torch[/]"
    assert printed["plugins"][1]["registers"] != []
    assert len(printed["clashes"]) == 1


@pytest.mark.usefixtures("terminal")
def test_a_model_that_cannot_be_used_here_says_why_and_the_others_work(say: Ask, monkeypatch: pytest.MonkeyPatch):
    why = "shy needs a package that is not here: install it"
    shy = ModelSpec(
        name="shy",
        description="",
        model="no:Model",
        config="glimpsezoo.settings:NoSettings",
        unavailable=why,
        provenance=Provenance("shy", "a-shy", "1"),
    )
    made = Registry([*registry().plugins, LoadedPlugin(Provenance("shy", "a-shy", "1"), specs=(shy,))])
    for user in ("plugins", "names", "models"):
        monkeypatch.setattr(f"glimpsezoo.zoo.{user}.registry", lambda: made)
    answer = say("plugins")
    assert answer.status == 0
    assert f"UNAVAILABLE: {why}" in " ".join(answer.out.split())
    assert say("plugins", "--json").json["plugins"][-1]["unavailable"] == why
    for words in (("run", "shy"), ("run", "shy", "cnn4", "--checkpoint", "none"), ("check", "shy"), ("trace", "shy", "--index", "1")):
        answer = say(*words)
        assert (answer.status, answer.err) == (2, f"glimpsezoo: {why}\n"), words
    assert say("run", "cnn4", "--checkpoint", "none", "--limit", "20").status == 0


def standard_error_on_a_terminal(here: Path, **environment: str) -> str:
    """What a terminal is sent as the answer to a misspelt command."""
    reader, writer = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment = plain | {"TERM": "xterm"} | environment
    subprocess.run(
        [sys.executable, "-m", "glimpsezoo", "lsit"], stderr=writer, stdout=subprocess.PIPE, check=False, cwd=here, env=environment
    )
    os.close(writer)
    return os.read(reader, 10_000).decode()


def test_an_error_is_in_colour_on_a_terminal_only(here: Path, say: Ask):
    line = "glimpsezoo: expected a command, got 'lsit': did you mean 'list'?"
    assert standard_error_on_a_terminal(here).startswith("\x1b[31m\x1b[1mglimpsezoo:\x1b[0m expected a command")
    assert standard_error_on_a_terminal(here, NO_COLOR="1").strip() == line
    assert say("lsit").err.strip() == line


LIGHT = """
import sys
from glimpsezoo.commands import cli
cli(["show", "cnn4.digits"], standalone_mode=False)
print([name for name in ("torch", "timm", "datasets") if name in sys.modules])
"""


def test_showing_a_card_loads_nothing_heavy(here: Path):
    make_card(here / "zoo_cards" / "cnn4.digits")
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False, cwd=here)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("words", [("list",), ("list", "--json")])
def test_a_reader_that_leaves_is_no_traceback(here: Path, words: tuple[str, ...]):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "glimpsezoo", *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=here
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
