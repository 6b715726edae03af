"""Files and command lines drawn by hypothesis. Each kind writes a file into the working folder of `hostile_files`, and returns a command.

A kind is a function of `draw` (of `st.data()`) that returns the words of a command. A new one is added to `KINDS`.
"""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from command_line import COMMANDS, put_weights
from hostile_files import CONFIG, LOG, RESULT, TEST
from hypothesis import strategies as st
from PIL import Image

from glimpsezoo.toml_text import toml_text
from glimpsezoo.untrusted import toml_values
from glimpsezoo.zoo.cards import Card

Draw = Callable[[st.SearchStrategy[Any]], Any]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["", " ", "..", "/", "\x1b[2J", "\u202e", "=1+1", "<b>", "nan", "é" * 150, "hf-hub:a/b", "folder:f", "cnn4", "c", "a\n---\nb"]
)
NUMBERS = st.integers(-3, 40) | st.sampled_from([2**31, -(2**63), 2**64, 10**30, 10**299]) | st.floats(-1e3, 1e3)
ODD_NUMBERS = NUMBERS | st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308, 5e-324])
PLAIN = st.none() | st.booleans() | ODD_NUMBERS | TEXT
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5)


def places(values: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in nested lists and dictionaries."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [before, *(place for key, value in inner for place in places(value, (*before, key)))]


def mutated(draw: Draw, values: Any) -> Any:
    """Nested values with one to three changes: a value replaced or left out, a key added."""
    values = json.loads(json.dumps(values))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(values)[1:] or [()]))
        if not place:
            return draw(VALUES)
        holder = values
        for key in place[:-1]:
            holder = holder[key]
        how = draw(st.sampled_from(["replaced", "replaced", "left out", "added"]))
        if how == "replaced":
            holder[place[-1]] = draw(VALUES)
        elif how == "left out":
            del holder[place[-1]]
        elif isinstance(holder, dict):
            holder[draw(TEXT)] = draw(VALUES)
    return values


def damaged(draw: Draw, content: bytes) -> bytes:
    """Bytes with some changed, cut off or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(found) - 1)))
        how = draw(st.sampled_from(["changed", "cut", "put in"]))
        if how == "changed" and found:
            found[place] = draw(st.integers(0, 255))
        elif how == "cut":
            del found[place : place + draw(st.sampled_from([1, 4, 100, 10**9]))]
        else:
            found[place:place] = draw(st.binary(max_size=9))
    return bytes(found)


def as_json(draw: Draw, values: Any) -> bytes:
    """Changed values as JSON, sometimes with damaged bytes."""
    content = json.dumps(mutated(draw, values)).encode()
    return damaged(draw, content) if draw(st.integers(0, 4)) == 0 else content


def original(path: str, read: Callable[[bytes], Any]) -> Any:
    """What the file held before the first change."""
    kept = Path(f"{path}.kept")
    if not kept.exists():
        kept.write_bytes(Path(path).read_bytes())
    return read(kept.read_bytes())


def command_line(draw: Draw) -> list[str]:
    """Commands that neither take long nor leave the machine."""
    name = draw(st.sampled_from(["run", "train", "list", "show", "compare", "predict", "plugins", "completion", "import"]))
    options = [
        each for each in COMMANDS[name].params if each.param_type_name == "option" and each.name not in {"debug", "paper"}
    ]  # papers take minutes
    words = [name]
    for _ in range(draw(st.integers(0, 4)) if options else 0):
        option = draw(st.sampled_from(options))
        words.append(draw(st.sampled_from(option.opts)))
        if not getattr(option, "is_flag", False) and draw(st.booleans()):
            words.append(draw(TEXT | NUMBERS.map(str)))
    words += draw(st.lists(TEXT | st.sampled_from(["c", "cnn4", "digits", "i.png", "r", "models"]), max_size=3))
    return [*words, "--dry-run"] if name in {"run", "train"} else words


def recipe(draw: Draw) -> list[str]:
    found = mutated(draw, original("r.toml", lambda content: toml_values(content.decode())))
    text = toml_text(found if isinstance(found, dict) else {"x": found}).encode("utf-8", "replace")
    Path("r.toml").write_bytes(damaged(draw, text) if draw(st.integers(0, 3)) == 0 else text)
    return ["train", "cnn4", "--recipe", "r.toml", "--print-recipe"]


def options_file(draw: Draw) -> list[str]:
    values = {"models": ["c"], "limit": 3, "measure": "accuracy", "set": {"data": {"seed": 1}}, "seed": 0}
    found = mutated(draw, values)
    Path("o.toml").write_bytes(toml_text(found if isinstance(found, dict) else {"x": found}).encode("utf-8", "replace"))
    return ["run", "--config", "o.toml", "--dry-run"]


def config(draw: Draw) -> list[str]:
    Path(CONFIG).write_bytes(as_json(draw, original(CONFIG, json.loads)))
    return draw(st.sampled_from([["show", "c"], ["show", "c", "--json"], ["list", "cards", "--json"], ["predict", "c", "i.png", "--json"]]))


def result(draw: Draw) -> list[str]:
    Path(RESULT).write_bytes(as_json(draw, original(RESULT, json.loads)))
    form = draw(st.sampled_from(["table", "csv", "markdown", "latex", "json", "report"]))
    return ["report", "r", "--traces", "0", "--force", "-o", "o.html"] if form == "report" else ["compare", "r", "--format", form]


def training_log(draw: Draw) -> list[str]:
    line = {"phase": "a", "phase_index": 0, "epoch": 1, "step": 3, "losses": {"loss": 0.5}, "calibration": 0.9, "seconds": 1.0}
    Path(LOG).write_bytes(b"\n".join(as_json(draw, line) for _ in range(3)))
    return ["report", "c", "--traces", "0", "--force", "-o", "o.html"]


def rows(draw: Draw) -> list[str]:
    table = original("r/rows.parquet", lambda content: pq.read_table(io.BytesIO(content)))
    if draw(st.booleans()):
        Path("r/rows.parquet").write_bytes(damaged(draw, Path("r/rows.parquet.kept").read_bytes()))
    else:
        place = draw(st.integers(0, table.num_columns - 1))
        changed = draw(st.sampled_from([pa.array(["x"] * len(table)), pa.array([-1] * len(table)), pa.nulls(len(table)), None]))
        name = table.column_names[place]
        table = table.remove_column(place) if changed is None else table.set_column(place, name, changed)
        pq.write_table(table.slice(0, draw(st.integers(0, len(table)))), "r/rows.parquet")
    return ["compare", "r", "--format", draw(st.sampled_from(["table", "json"]))]


def safetensors_header(draw: Draw) -> list[str]:
    weights, card = Path("zoo_cards/c/model.safetensors"), Card.read(Path("zoo_cards/c"))
    content = original(str(weights), bytes)
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    if draw(st.integers(0, 2)):
        text = json.dumps(mutated(draw, header)).encode()
        content = struct.pack("<Q", draw(st.sampled_from([len(text), len(text), 0, 2**40]))) + text + data
    else:
        content = damaged(draw, content[: 8 + size]) + data
    put_weights(card, content)
    return ["predict", "c", "i.png", "--json"]


def data_set(draw: Draw) -> list[str]:
    images = draw(st.sampled_from(["whole", "cut", "text", "numbers", "none", "bytes"]))
    content = Path("i.png").read_bytes()
    cells: Any = {
        "whole": [{"bytes": content, "path": None}] * 20,
        "cut": [{"bytes": content[: draw(st.integers(0, len(content)))], "path": None}] * 20,
        "text": ["x"] * 20,
        "numbers": [draw(NUMBERS.filter(lambda number: abs(number) < 2**60))] * 20,
        "none": [None] * 20,
        "bytes": [content] * 20,
    }[images]
    label = draw(st.sampled_from([0, 1, -1, 2**40, 0.5, None, "a", "\x1b[2J", [0], True]))
    table = pa.table({draw(st.sampled_from(["image", "img", "x"])): cells, draw(st.sampled_from(["label", "y"])): [label] * 20})
    pq.write_table(table, TEST)
    if draw(st.integers(0, 4)) == 0:
        Path(TEST).write_bytes(damaged(draw, Path(TEST).read_bytes()))
    return ["show", "hf:me/set", "--data-dir", "p", *draw(st.sampled_from([[], ["--json"]]))]


WHOLE = "whole.bin"  # an image that is read
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
FORMATS = {
    "PNG": (*MODES[:6], "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "TIFF": MODES,
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "RGB"),
    "WEBP": ("RGB", "RGBA"),
}


def image(draw: Draw) -> list[str]:
    """An image of any mode, format, size and orientation, animated or not; most are whole, the others damaged."""
    kind = draw(st.sampled_from(sorted(FORMATS)))
    mode = draw(st.sampled_from(FORMATS[kind]))
    size = draw(st.sampled_from([(1, 1), (1, 300), (300, 1), (64, 64), (7, 31)]))
    pixels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    made = Image.fromarray(pixels)
    if mode in {"I;16", "I", "F"}:
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        made = Image.fromarray((pixels[..., 0].astype(np.float64) * (1 / 255 if mode == "F" else 257)).astype(kinds[mode]))
    else:
        made = made.convert(mode)
    exif, more = Image.Exif(), {}
    exif[274] = draw(st.sampled_from([1, 3, 6, 8, 0, 99]))
    if kind in {"GIF", "WEBP", "TIFF"} and draw(st.booleans()):
        more = {"save_all": True, "append_images": [made.copy()]}
    stream = io.BytesIO()
    made.save(stream, kind, **(more if kind in {"GIF", "BMP"} else {**more, "exif": exif}))
    content = stream.getvalue()
    whole = draw(st.integers(0, 2)) > 0 and mode not in {"I", "F"}  # of 32 bits, whose full scale nobody knows
    name = WHOLE if whole else "i.bin"
    Path(name).write_bytes(content if whole else damaged(draw, content))
    return ["predict", "c", name, "--json"]


KINDS: dict[str, Callable[[Draw], list[str]]] = {
    "command lines": command_line,
    "recipes": recipe,
    "files of options": options_file,
    "config.json": config,
    "result.json": result,
    "training logs": training_log,
    "rows": rows,
    "safetensors headers": safetensors_header,
    "Parquet data": data_set,
    "images": image,
}
