"""Names and texts that anybody may have written reach no terminal, page, Markdown, YAML, LaTeX or CSV unescaped."""

import ast
import csv
import io
import json
import logging
import re
import unicodedata
from pathlib import Path

import pytest
import yaml
from command_line import make_card, rewrite
from result_files import result
from rich.table import Table as RichTable

from glimpsezoo import escaping
from glimpsezoo.commands import options
from glimpsezoo.measures.shown import Cell, Table
from glimpsezoo.reports import table as tables
from glimpsezoo.reports.readme import card_text
from glimpsezoo.zoo.cards import Card

COMMANDS = Path(options.__file__).parent
HOSTILE = {
    "escape sequence": "a\x1b[2J\x1b]0;owned\x07b",
    "8-bit escape sequence": "a\x9b31mb",
    "back to the beginning of the line": "a\rb",
    "right to left": "a\u202eb\u2066c",
    "zero width": "a\u200bb\u2060c\ufeffd",
    "line separator": "a\u2028b\u0085c",
    "tags": "a\U000e0041b",
    "no Unicode": "a\udc80b",
    "line breaks": "a\nb\r\nc\vd\fe",
}


def hidden(text: str) -> set[str]:
    """The characters that change a terminal or that nobody sees."""
    visible = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")  # signs around numbers
    found = {each for each in text if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    return {each for each in found - visible if not "\U00013430" <= each <= "\U0001345f"}  # marks that join hieroglyphs


def test_no_function_leaves_a_hidden_character():
    every = "".join(map(chr, range(0x110000)))
    assert hidden(escaping.terminal(every)) == {"\t", "\n"}
    for function in (escaping.line, escaping.html, escaping.markdown, escaping.code, escaping.latex, escaping.latex_comment, escaping.cell):
        assert hidden(function(every)) == set(), function.__name__
    assert hidden(str(escaping.yaml(every))) == set()
    assert hidden(escaping.fenced(every)) == {"\n"}
    assert escaping.terminal("é ü 猫 🐈 x\u00a0y") == "é ü 猫 🐈 x\u00a0y"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_on_a_terminal_stays_the_same_json(text: str):
    shown = escaping.terminal(json.dumps([text], ensure_ascii=False))
    assert hidden(shown) == set()
    assert json.loads(shown) == [text]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_console_draws_is_escaped(text: str):
    for console in (options.stdout(), options.stderr()):
        with console.capture() as captured:
            drawn = RichTable(title=text)
            drawn.add_column(text)
            drawn.add_row(text)
            console.print(drawn, text)
            console.print(tables.terminal(Table(text, ("model", text), ((Cell(text), Cell(text)),), frozenset()), 100))
        assert hidden(captured.get()) <= {"\n"}


def test_the_commands_write_only_by_the_functions_that_escape():
    """`click.echo` and consoles of their own would go around them."""
    for file in COMMANDS.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        allowed = {"click.echo"} if file.name in {"options.py", "__init__.py"} else set()
        assert called & {"click.echo", "click.secho", "print", "Console", "sys.stdout.write", "sys.stderr.write"} <= allowed, file.name


def test_what_the_command_line_echoes_itself_is_escaped():
    """In these two files every text of others that is echoed goes through a function of `escaping`."""
    plain = {"nl=sys.stderr.isatty()", "nl=False", "context.get_help()", "f'glimpsezoo, version {version_of(None)}'", "text"}
    for file in ("options.py", "__init__.py"):
        for node in ast.walk(ast.parse((COMMANDS / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "click.echo":
                first = ast.unparse(node.args[0]) if node.args else ast.unparse(node.keywords[0])
                assert "escaping." in first or first in plain, first


LINKS = ["[a](http://evil)", "![a](x)", "<http://evil>", "http://evil", "www.evil.com", "me@evil.com"]
MARKDOWN = [*LINKS, "<script>", "`x`", "a|b", "# x", "*x*", "_x_", "&lt;", "~~x~~", "$x$", "\\"]


@pytest.mark.parametrize("text", MARKDOWN)
def test_markdown_shows_text_as_it_is(text: str):
    from markdown import markdown as read

    shown = read(f"x {escaping.markdown(text)} x", extensions=["tables"]).replace("<!-- -->", "")
    assert re.sub(r"<(?!/?p>)", "TAG", shown).startswith("<p>x ")
    assert "TAG" not in re.sub(r"<(?!/?p>)", "TAG", shown)
    span = read(f"x {escaping.code(text)} x")
    assert span.count("<code>") == 1
    assert re.findall("<(?!/?p>|/?code>)", span) == []


def test_a_password_with_an_at_sign_is_hidden_whole():
    assert escaping.redacted("GET https://me:se@cret@host/a@b?c=d@e") == "GET https://***@host/a@b?c=d@e"


def test_addresses_are_no_links_where_addresses_become_links():
    """As GitHub renders it."""
    from cmarkgfm import github_flavored_markdown_to_html as read

    schemes = ("http://evil.com", "HTTPS://evil.com", "ftp://evil.com", "mailto:me@evil.com")
    addresses = (*schemes, "www.evil.com", "me@evil.com", "me@e_vil.com")
    for text in [before + address for before in ("", "a_", "1", "a", "(") for address in addresses]:
        assert "<a" in read(f"x {text} x") or text[0] in "a1("
        assert "<a" not in read(f"x {escaping.markdown(text)} x"), text


@pytest.mark.parametrize("text", ["=1+1", " =1", "\t=1", "\n=1", "\u00a0=1", "+1", "-1", "@x", "\uff1d1"])
def test_no_cell_of_csv_is_a_formula(text: str):
    found = Table("", (text, "n"), ((Cell(text), Cell("1", 1)),), frozenset({text}))
    for row in csv.reader(io.StringIO(tables.comma_separated(found))):
        assert row[0].startswith("'")


def test_a_row_of_latex_does_not_begin_with_an_argument():
    text = tables.latex(Table("", ("m",), ((Cell("[2pt]\\input{x}%^^M"),),), frozenset({"m"})), ["a\n\\input{x}"])
    assert "{[}2pt]\\textbackslash{}input\\{x\\}\\%\\textasciicircum{}\\textasciicircum{}M" in text
    assert text.splitlines()[-1] == "% a \\input{x}"


EVIL = "x\n---\nlicense: evil\n# [a](http://evil) <script>alert(1)</script> `| =1+1 \x1b[31m\u202e"


def evil_card(folder: Path) -> Card:
    card = make_card(folder / "c", data_settings={"size": 64})
    settings = {"name": "digits", "settings": {EVIL: EVIL}}
    trained = {"command": f"glimpsezoo {EVIL}```", "minutes": 1.0, "machine": EVIL, "torch": EVIL, "notes": [EVIL]}
    rewrite(card, data=settings, trained=trained, config={**card.config.config, EVIL: EVIL})
    return Card.read(card.folder)


@pytest.mark.parametrize("measured", [False, True])
def test_the_readme_of_a_card_holds_no_key_no_tag_and_no_link_of_a_stranger(tmp_path: Path, measured: bool):
    card = evil_card(tmp_path)
    found = result(EVIL)
    found = found.model_copy(update={"data": found.data.model_copy(update={"name": EVIL, "source": EVIL, "split": EVIL})})
    text = card_text(card, found if measured else None)
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr] # the first '---' ends it
    keys = {"license", "library_name", "pipeline_tag", "tags", "datasets", "metrics", "model-index", "model_name"}
    assert set(yaml.safe_load(head)) <= keys
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    assert hidden(text) == {"\n"}
    prose = re.sub(r"(?<![\\`])(`+)(?!`).*?(?<!`)\1(?!`)", "", body, flags=re.DOTALL)  # without code
    assert "<script" not in prose
    assert not re.search(r"(?<!\\)\]\(http", prose)
    assert [line for line in prose.splitlines() if line.startswith("# ")] == ["# c"]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in prose.partition("## Settings")[2].splitlines() if line.startswith("| x")} <= {3}


def test_what_show_prints_of_a_card_is_escaped(tmp_path: Path, say, terminal: None):
    evil_card(tmp_path / "zoo_cards")
    for words in ((), ("--json",), ("--quiet",)):
        answer = say("show", "c", *words)
        assert answer.status == 0, answer.err
        assert hidden(answer.out) <= {"\n"}
    assert r"\u001b[31m\u202e" in say("show", "c").out


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_misspelt_word_reaches_the_terminal_escaped(say, text: str):
    for words in (
        ("run", text),
        ("show", text),
        ("run", "cnn4", "--data", text),
        ("compare", text),
        (text,),
        ("run", "cnn4", "--set", text),
    ):
        answer = say(*words)
        assert answer.status == 2
        assert hidden(answer.err) == {"\n"}
        assert answer.err.count("\n") == 1


def test_a_token_is_in_no_line_and_in_no_traceback(say, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-mine")
    for secret in ("a-secret-of-mine", "hf_abcdefghijklmnopqrstuvwx", "https://me:a-pass@host/x"):
        answer = say("run", f"no/{secret}", "--debug")
        assert "Traceback" in answer.err
        assert not re.search("secret|hf_a|a-pass", answer.err + answer.out)


def test_an_error_of_the_hub_is_one_harmless_line_without_a_token(say, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    def refuse(*_: object, **__: object) -> None:
        response = type("Response", (), {"status_code": 500, "headers": {}, "request": None})()
        error = HfHubHTTPError("x", response=response)  # type: ignore[arg-type]
        error.server_message = "no\x1b[2J\u202e\nhf_abcdefghijklmnopqrstuvwx"
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    answer = say("run", "hf-hub:a/b")
    assert answer.status == 2
    assert r"HTTP status 500: no\u001b[2J\u202e ***" in answer.err
    assert answer.err.count("\n") == 1


def test_what_a_library_logs_is_harmless(say, capsys: pytest.CaptureFixture[str]):
    """The Hub's client logs a header of the Hub as it is."""
    say("list", "attacks")
    log = logging.getLogger("of a library")
    log.addHandler(logging.StreamHandler())
    log.warning("the server says: %s", "a\x1b[2Jb hf_abcdefghijklmnopqrstuvwx")
    assert capsys.readouterr().err == "the server says: a\\u001b[2Jb ***\n"


def test_a_token_is_in_no_result_and_in_no_card(here: Path, say):
    make_card(here / "zoo_cards" / "c")
    token = "hf_abcdefghijklmnopqrstuvwx"
    assert say("run", "c", "--limit", "2", "--measure", "accuracy", "-o", f"o/{token}").status == 0
    for file in here.rglob("*.json"):
        assert token not in file.read_text()
