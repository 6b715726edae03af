"""docs/security.md: what the tests of hostile files, of escaping and of fuzzing do not cover."""

import ast
import io
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from command_line import make_card
from hostile_files import HOSTILE, png
from PIL import Image

from glimpsezoo import untrusted
from glimpsezoo.commands import cli, names
from glimpsezoo.data.encoded import EncodedImage, _from_cells
from glimpsezoo.data.images import decode
from glimpsezoo.data.pixels import AS_STORED, MOST, decoded, opened
from glimpsezoo.data.survey import survey
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import LONGEST, check_inside, file_name

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def limit(what: str) -> str:
    return next(cells[2].strip() for cells in (line.split("|") for line in PAGE.splitlines()) if len(cells) > 3 and what in cells[1])


def test_the_limits_of_the_page_are_those_of_the_code():
    assert limit("pixels") == f"{Image.MAX_IMAGE_PIXELS:,}, as in Pillow; `{MOST}` raises it"
    assert limit("an image file") == f"{untrusted.IMAGE_SIZE // untrusted.MB} MB"
    assert limit("JSON: cards") == f"{untrusted.JSON_SIZE // untrusted.MB} MB"
    assert limit("TOML: recipes") == f"{untrusted.TOML_SIZE // untrusted.MB} MB"
    assert limit("lists and tables") == str(untrusted.DEPTH)
    assert limit("digits") == str(untrusted.DIGITS)
    assert limit("name of a card") == f"{LONGEST} bytes"
    assert limit("rows of a Parquet") == f"{untrusted.ROWS:,}"
    assert limit(f"more than {untrusted.UNPACKED // untrusted.MB:,} MB") == f"{untrusted.RATIO} times their size"
    assert limit("README") == f"{untrusted.README_SIZE // untrusted.MB} MB, {untrusted.ALIASES} references (`*NAME`) in its YAML"
    assert len(HOSTILE) > 80


def test_nothing_executes_what_it_reads():
    """No loader that runs code: neither pickle nor its likes, nor torch.load without `weights_only`."""
    runs = {
        "eval",
        "exec",
        "pickle.load",
        "pickle.loads",
        "yaml.load",
        "np.load",
        "numpy.load",
        "os.system",
        "torch.jit.load",
        "torch.hub.load",
    }
    files = [*ROOT.glob("glimpsezoo/**/*.py"), *ROOT.glob("plugins/*/glimpsezoo_*/**/*.py")]
    assert len(files) > 200
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert name not in runs or (name == "pickle.loads" and file.parent.name == "engines"), file  # of its own processes
                assert given.get("shell", "False") == "False", file
                assert name != "torch.load" or given.get("weights_only") == "True", file


def test_json_and_toml_are_read_in_one_place():
    """Elsewhere only texts that glimpsezoo wrote itself: in the user's folder, or in memory."""
    own = {"run/answers.py", "data/listings.py", "commands/comparing.py", "training/loggers.py", "workflows/exported_runner.py"}
    for file in ROOT.glob("glimpsezoo/**/*.py"):
        text = file.read_text(encoding="utf-8")
        if file.relative_to(ROOT / "glimpsezoo").as_posix() not in own | {"untrusted.py"}:
            assert not re.search(r"json\.loads?\(|tomllib", text), file


def test_the_limit_of_pixels_can_be_raised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with pytest.raises(ValueError, match=f"169,000,000 pixels.*{MOST}"):
        opened(png(13_000, 13_000))
    monkeypatch.setenv(MOST, "200000000")
    assert opened(png(13_000, 13_000)).size == (13_000, 13_000)
    monkeypatch.setenv(MOST, "100")
    with pytest.raises(ValueError, match="100 are the most"):
        decoded(png(11, 10), 3)


def test_a_limit_of_pixels_that_is_no_number_is_not_taken_for_bad_images(monkeypatch: pytest.MonkeyPatch):
    row = EncodedImage(png(4, 4), label=0, where="a.png")
    monkeypatch.setenv(MOST, "many")
    images: Any = SimpleNamespace(at=lambda numbers: iter([row]))
    for look in (lambda: decode(row, 3), lambda: survey(images, [0]), lambda: survey(images, [0], AS_STORED)):
        with pytest.raises(GlimpseZooError, match=f"^{MOST} expects a number of pixels, got 'many'"):
            look()


def test_a_data_set_on_the_hub_names_no_file_of_this_machine(tmp_path: Path):
    stream = io.BytesIO()
    Image.new("L", (2, 2)).save(stream, "PNG")
    (tmp_path / "secret.png").write_bytes(stream.getvalue())
    cell = {"bytes": None, "path": str(tmp_path / "secret.png")}
    assert _from_cells(cell, 0, "row 0", str(tmp_path)).image == stream.getvalue()
    assert _from_cells(cell, 0, "row 0", "file://elsewhere").image is None


def test_names_of_files_fit_a_file_system_and_stay_apart(tmp_path: Path):
    long = ["é" * 200, "é" * 200 + "a", "é" * 300]
    assert len({file_name(name) for name in long}) == 3
    for name in long:
        assert len(os.fsencode(file_name(name))) <= LONGEST
        (tmp_path / file_name(name)).mkdir()
    assert file_name("é" * 90) == "é" * 90


def test_a_link_in_an_output_folder_may_lead_within_it_and_the_folder_may_be_a_link(tmp_path: Path):
    (tmp_path / "real" / "a").mkdir(parents=True)
    (tmp_path / "out").symlink_to("real")
    (tmp_path / "real" / "b").symlink_to("a")
    check_inside(tmp_path / "out", tmp_path / "out" / "b")
    (tmp_path / "real" / "c").symlink_to("..")
    with pytest.raises(GlimpseZooError, match="leads out of it"):
        check_inside(tmp_path / "out", tmp_path / "out" / "c")


def test_a_shell_completes_no_name_that_it_would_run(here: Path):
    card = make_card(here / "zoo_cards" / "c")
    for name in ("$(touch escaped)", "a;b", "x\x1b[2J"):
        shutil.copytree(card.folder, here / "zoo_cards" / name)
    found = names.cards(click.Context(cli), click.Argument(["name"]), "")
    assert [each.value for each in found if each.type == "plain"] == ["c"]


@pytest.mark.parametrize("text", [".".join("a" * 300_000), '"\\' * 300_000, "'''x" * 200_001, " " * 900_000 + "x", "a = " + "[" * 400_000])
def test_toml_that_a_parser_would_take_hours_for(text: str):
    with pytest.raises(ValueError, match=r"100 deep|\(at "):
        untrusted.toml_values(text)
