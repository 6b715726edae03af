"""Hostile files: bombs, deep nesting, huge numbers, files that never end, names that lead elsewhere. Each is made in a working folder.

The folder holds a card `c` in zoo_cards/, its result in r/, an image i.png, a folder of images f/, a recipe r.toml and a Parquet data set
p/. A case changes one of them, and names a command that reads it.
"""

import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from command_line import RECIPE, make_card, photos, put_weights
from data_files import encoded, write_parquet
from PIL import Image
from result_files import MEASURED, result, rows
from row_files import write_rows

from glimpsezoo.evaluation.rows import StoredUnit

DEEP, DIGITS, LONG = 100_000, "9" * 5_000, "é" * 200
RUN, SHOW, REPORT = "run c --measure accuracy --limit 8 -o o", "show c", "report r --traces 0 -o o.html"
PREDICT, IMPORT, RECIPE_RUN = "predict c i.png", "import mgnet w.ckpt -o o", "train cnn4 --recipe r.toml --dry-run"
PARQUET, PARQUET_RUN = "show hf:me/set --data-dir p", "run c --data hf:me/set --data-dir p --checkpoint none --limit 2 -o o"
FOLDER, TRAIN = "show folder:f", "train cnn4 --recipe r.toml --set train.steps=1 --data digits -o o"


@dataclass(frozen=True)
class Hostile:
    """A hostile file."""

    name: str
    make: Callable[[], object]
    """Makes it in the working folder."""
    command: str
    """What reads it."""
    says: str = ""
    """A part of the line that refuses it; '' if it is harmless or says nothing special."""
    status: tuple[int, ...] = (2,)
    """The exit statuses that are right."""


def working_folder(folder: Path) -> None:
    """Harmless files."""
    card = make_card(folder / "zoo_cards" / "c")
    (folder / "r").mkdir()
    (folder / "r" / "result.json").write_text(result("c").to_json())
    write_rows(folder / "r" / "rows.parquet", StoredUnit(rows([0, 1] * 50), MEASURED))
    shutil.copy(folder / "r" / "result.json", card.folder)
    Image.new("L", (64, 64)).save(folder / "i.png")
    photos(folder / "f", per_class=6)
    (folder / "r.toml").write_text(RECIPE)
    write_parquet(folder / "p" / "train-00000-of-00001.parquet", [encoded(Image.new("RGB", (9, 9)))] * 20, [0, 1] * 10, ["a", "b"])
    write_parquet(folder / "p" / "test-00000-of-00001.parquet", [encoded(Image.new("RGB", (9, 9)))] * 20, [0, 1] * 10, ["a", "b"])


def changed(path: str, **values: Any) -> Callable[[], object]:
    """Other values in a JSON file."""
    return lambda: Path(path).write_text(json.dumps(json.loads(Path(path).read_text()) | values))


def replaced(path: str, old: str, new: str) -> Callable[[], object]:
    """Other text in a file, once."""

    def make() -> None:
        text = Path(path).read_text()
        assert old in text
        Path(path).write_text(text.replace(old, new, 1))

    return make


def written(path: str, content: str | bytes) -> Callable[[], object]:
    return lambda: Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def linked(path: str, target: str) -> Callable[[], object]:
    """A symbolic link in place of whatever is there."""

    def make() -> None:
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        place.symlink_to(target)

    return make


def piped(path: str) -> Callable[[], object]:
    """A named pipe in place of whatever is there."""

    def make() -> None:
        Path(path).unlink(missing_ok=True)
        os.mkfifo(path)

    return make


def png(width: int, height: int, content: bytes = bytes(1000)) -> bytes:
    """A PNG that declares this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b",\0\0\0\0" + struct.pack("<HHB", width, height, 0) + b"\x02\0;"


def safetensors(header: Any, data: bytes = b"", size: int | None = None) -> Callable[[], object]:
    """Weights with any header, and with their own hash in config.json. size: what the file says of its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()

    def make() -> None:
        from glimpsezoo.zoo.cards import Card

        put_weights(Card.read(Path("zoo_cards/c")), struct.pack("<Q", len(text) if size is None else size) + text + data)

    return make


def zipped(path: str, entries: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Callable[[], object]:
    def make() -> None:
        with zipfile.ZipFile(path, "w", kind) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    return make


def zip_bomb(path: str) -> None:
    """It says that it unpacks to 4 GB."""
    zipped(path, {"archive/data/0": bytes(10**6)}, zipfile.ZIP_DEFLATED)()
    content = bytearray(Path(path).read_bytes())
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = b"\xf0\xff\xff\xff"
    Path(path).write_bytes(content)


def pickled(value: Any) -> Callable[[], object]:
    return lambda: torch.save(value, "w.ckpt")


class Runs:
    """Would write a file if it were unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ../escaped",)


def many_rows() -> None:
    """200 million rows in a few kilobytes."""
    pq.write_table(pa.table({"id": pa.nulls(2 * 10**8, pa.bool_())}), "r/rows.parquet", row_group_size=10**8)


def rows_of_data(images: Any) -> Callable[[], object]:
    """A Parquet data set of these images."""

    def make() -> None:
        found = images() if callable(images) else images
        for split in ("train", "test"):
            table = pa.table({"image": found, "label": pa.array([0, 1] * (len(found) // 2))})
            pq.write_table(table, f"p/{split}-00000-of-00001.parquet")

    return make


def by_path(path: str) -> Any:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": None, "path": path}] * 20, kind)


def task(size: int, channels: int) -> dict[str, Any]:
    return {"image_size": [size, size], "channels": channels, "classes": ["a", "b"], "mean": [0], "std": [1]}


def tensor(*shape: int, until: int = 4) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, until]}


def cut(path: str, size: int) -> Callable[[], object]:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:size])


def settings(values: Any) -> Callable[[], object]:
    """The data settings of the card."""
    return changed(CONFIG, data={"name": "digits", "settings": values})


def aliases() -> object:
    """Lists of lists of lists, each ten times."""
    lists = [f"a{k + 1}: &a{k + 1} [{','.join([f'*a{k}'] * 10)}]" for k in range(9)]
    return Path("p/README.md").write_text("\n".join(["---", "a0: &a0 [x]", *lists, "configs: *a9", "---", ""]))


CONFIG, RESULT, LOG, TEST = "zoo_cards/c/config.json", "r/result.json", "zoo_cards/c/training.jsonl", "p/test-00000-of-00001.parquet"
NESTED = "[" * DEEP + "]" * DEEP
DEEP_SAYS, DIGIT_SAYS = "nested more than 100 deep", "digits"
HIDDEN = "x\x1b[2J\u202e\n---\nevil: true"

CARDS = [
    Hostile("config.json nested deeply", written(CONFIG, NESTED), SHOW, DEEP_SAYS),
    Hostile("config.json with deep tables", written(CONFIG, '{"a":' * DEEP + "1" + "}" * DEEP), RUN, DEEP_SAYS),
    Hostile("a setting nested deeply", settings({"x": json.loads("[" * 150 + "]" * 150)}), SHOW, DEEP_SAYS),
    Hostile("a number of 5,000 digits", replaced(CONFIG, '"bytes": ', f'"bytes": {DIGITS}'), SHOW, DIGIT_SAYS),
    Hostile("weights of 10^299 bytes", replaced(CONFIG, '"bytes": ', f'"bytes": {"9" * 290}'), PREDICT, "another sha256"),
    Hostile("a setting of 5,000 digits", replaced(CONFIG, '"config": {', f'"config": {{"x": {DIGITS}, '), "list cards", "", (0, 2)),
    Hostile("config.json of binary data", written(CONFIG, bytes(range(256)) * 10), SHOW, "config.json"),
    Hostile("config.json without an end", linked(CONFIG, "/dev/zero"), SHOW),
    Hostile("config.json of a pipe", piped(CONFIG), SHOW),
    Hostile("a card of a folder above", changed(CONFIG, name="../../escaped"), SHOW, "", (0,)),
    Hostile("a card called '..'", changed(CONFIG, name=".."), SHOW, "printable name"),
    Hostile("a card with a name of 400 bytes", changed(CONFIG, name=LONG), SHOW, "at most 200 bytes"),
    Hostile("a model with a line break", changed(CONFIG, model="cnn4\nx"), RUN, "printable name"),
    Hostile("weights in a folder above", replaced(CONFIG, '"model.safetensors"', '"../w.safetensors"'), RUN, "weights.file"),
    Hostile("hidden characters in settings", settings({HIDDEN: HIDDEN}), SHOW, "", (0,)),
    Hostile("another kind of training record", changed(CONFIG, trained={"notes": 3, "recipe": [1], "minutes": {}}), SHOW, "trained"),
    Hostile("a hub that is an address", changed(CONFIG, hub="https://evil/../x"), RUN, "OWNER/NAME"),
    Hostile("an image of 10^9 x 10^9", changed(CONFIG, task=task(10**9, 1)), PREDICT),
    Hostile("a million channels", changed(CONFIG, task=task(64, 10**9)), PREDICT),
]  # fmt: skip
RESULTS = [
    Hostile("result.json nested deeply", written(RESULT, NESTED), "compare r", DEEP_SAYS),
    Hostile("result.json with a number of 5,000 digits", replaced(RESULT, '"seed": ', f'"seed": {DIGITS}'), "compare r", DIGIT_SAYS),
    Hostile("result.json with NaN", replaced(RESULT, '"seed": ', '"seed": NaN, "x": '), "compare r", "result.json"),
    Hostile("a card's result.json nested deeply", written("zoo_cards/c/result.json", NESTED), "list cards", "", (0,)),
    Hostile("result.json without an end", linked(RESULT, "/dev/zero"), "compare r"),
    Hostile("hidden characters in a result", replaced(RESULT, '"name": "c"', f'"name": {json.dumps(HIDDEN)}'), "compare r", "", (0, 2)),
    Hostile("training.jsonl nested deeply", written(LOG, f"{NESTED}\n{DIGITS}\n"), "report c --traces 0 -o o.html", "", (0, 2)),
    Hostile("training.jsonl without an end", linked(LOG, "/dev/zero"), "report c --traces 0 -o o.html", "", (0, 2)),
    Hostile("rows.parquet of 200 million rows", many_rows, "compare r", "damaged"),
    Hostile("rows.parquet of a pipe", piped("r/rows.parquet"), "compare r", "not a file"),
    Hostile("a report over a pipe", piped("o.html"), REPORT, "", (0, 2)),
]
RECIPES = [
    Hostile("a recipe nested deeply", written("r.toml", f"x = {NESTED}"), RECIPE_RUN, DEEP_SAYS),
    Hostile("a recipe with a long key", written("r.toml", ".".join("a" * 200_000) + " = 1"), RECIPE_RUN, DEEP_SAYS),
    Hostile("a recipe with a number of 5,000 digits", written("r.toml", f"batch_size = {DIGITS}\n{RECIPE}"), RECIPE_RUN, DIGIT_SAYS),
    Hostile("a recipe of 2 MB", written("r.toml", RECIPE + "#" * 2_000_000), RECIPE_RUN, "1 MB"),
    Hostile("a recipe that never ends", linked("r.toml", "/dev/zero"), RECIPE_RUN, "not a file"),
    Hostile("a recipe of a pipe", piped("r.toml"), RECIPE_RUN, "not a file"),
    Hostile("a recipe of binary data", written("r.toml", bytes(range(256))), RECIPE_RUN, "TOML"),
    Hostile("options nested deeply", written("o.toml", f"limit = {NESTED}"), "run c --config o.toml --dry-run", DEEP_SAYS),
    Hostile("options that never end", linked("o.toml", "/dev/zero"), "run c --config o.toml --dry-run", "not a file"),
]
IMAGES = [
    Hostile("a PNG of 13,000 x 13,000", written("i.png", png(13_000, 13_000)), PREDICT, "169,000,000 pixels", (1,)),
    Hostile("a PNG of 60,000 x 60,000", written("i.png", png(60_000, 60_000)), "trace c --image i.png -o o.png", "pixels"),
    Hostile("a GIF of 65,535 x 65,535", written("i.png", gif(65_535, 65_535)), PREDICT, "pixels", (1,)),
    Hostile("a PNG that unpacks to more than it says", written("i.png", png(8, 8, bytes(10**8))), PREDICT, "", (0, 1)),
    Hostile("a PNG of no pixels", written("i.png", png(0, 0)), PREDICT, "", (1,)),
    Hostile("a truncated PNG", cut("i.png", 60), PREDICT, "", (1,)),
    Hostile("an image that never ends", linked("i.png", "/dev/zero"), PREDICT, "not a file", (1,)),
    Hostile("an image of a pipe", piped("i.png"), "trace c --image i.png -o o.png", "not a file"),
    Hostile("an image that links to itself", linked("i.png", "i.png"), PREDICT, "", (1,)),
    Hostile("an SVG that names files", written("i.png", "<svg><image href='/etc/passwd'/></svg>"), PREDICT, "", (1,)),
]  # fmt: skip
WEIGHTS = [
    Hostile("a header of 2^63 bytes", safetensors({}, size=2**63), PREDICT, "damaged"),
    Hostile("a header nested deeply", safetensors(b'{"a":' * DEEP), PREDICT, "damaged"),
    Hostile("a tensor of 2^62 values", safetensors({"head.bias": tensor(2**62)}, bytes(4)), PREDICT, "damaged"),
    Hostile("a tensor of no values and 2^62 rows", safetensors({"head.bias": tensor(2**62, 0, until=0)}), PREDICT),
    Hostile("tensors that overlap", safetensors({"a": tensor(1), "b": tensor(1)}, bytes(4)), PREDICT, "damaged"),
    Hostile("a header of 10,000 tensors", safetensors({f"\x1b{k}": tensor(0, until=0) for k in range(10_000)}), PREDICT, "missing"),
    Hostile("weights that never end", linked("zoo_cards/c/model.safetensors", "/dev/zero"), PREDICT),
    Hostile("a pickle that runs a program", pickled(Runs()), IMPORT, "could run code"),
    Hostile("a pickle for --checkpoint", pickled({"state_dict": Runs()}), "run mgnet --checkpoint w.ckpt -o o", "could run code"),
    Hostile("a checkpoint that unpacks to 4 GB", lambda: zip_bomb("w.ckpt"), IMPORT, "unpack to"),
    Hostile("a checkpoint with names above", zipped("w.ckpt", {"../../escaped": b"x", "a/data.pkl": b"N."}), IMPORT, "cannot be read"),
    Hostile("tensors that are views of one value", pickled({"state_dict": {"head.weight": torch.zeros(1).expand(10**12)}}), IMPORT),
    Hostile("a checkpoint that never ends", linked("w.ckpt", "/dev/zero"), IMPORT, "expected a checkpoint file"),
]  # fmt: skip
FOLDERS = [
    Hostile("a class folder that links to itself", linked("f/dark/loop", "loop"), FOLDER, "", (0,)),
    Hostile("a class folder that leads back", linked("f/dark/loop", ".."), FOLDER, "", (0,)),
    Hostile("a class folder with a pipe", piped("f/dark/9.png"), FOLDER, "", (0,)),
    Hostile("a class folder with a device", linked("f/dark/9.png", "/dev/zero"), FOLDER, "", (0,)),
    Hostile("a class with hidden characters", lambda: Path("f/dark").rename("f/x\x1b[2J\u202e"), FOLDER, "", (0,)),
    Hostile("a class that is no Unicode", lambda: os.rename(b"f/dark", b"f/\xff\xfe"), FOLDER, "in UTF-8"),
    Hostile("a class of 255 bytes", lambda: Path("f/dark").rename("f/" + "é" * 127), FOLDER, "", (0,)),
    Hostile("folders in each other, 100 deep", lambda: Path("f/dark/" + "d/" * 100).mkdir(parents=True), FOLDER, "", (0,)),
]  # fmt: skip
PARQUETS = [
    Hostile("rows that name a device", rows_of_data(by_path("/dev/zero")), PARQUET, "", (0, 2)),
    Hostile("rows that name files above", rows_of_data(by_path("../../../../etc/passwd")), PARQUET, "", (0, 2)),
    Hostile("rows that name an address", rows_of_data(by_path("http://127.0.0.1:1/x.png")), PARQUET, "", (0, 2)),
    Hostile("a PNG bomb in a row", rows_of_data(lambda: pa.array([{"bytes": png(13_000, 13_000)}] * 20)), PARQUET_RUN, "", (1, 2)),
    Hostile("a Parquet file that is none", written(TEST, b"PAR1" + bytes(1000) + b"PAR1"), PARQUET, "cannot be read"),
    Hostile("a Parquet file that is cut", cut(TEST, -40), PARQUET, "cannot be read"),
    Hostile("a README nested deeply", written("p/README.md", f"---\nconfigs: {NESTED}\n---\n"), PARQUET, "", (0, 2)),
    Hostile("a README of aliases of aliases", aliases, PARQUET, "references"),
    Hostile("a README that is a pipe", piped("p/README.md"), PARQUET, "a pipe, not a file"),
]  # fmt: skip
OUTPUTS = [
    Hostile("an output that links to itself", linked("o", "o"), RUN, "symbolic links"),
    Hostile("an output with a name of 400 bytes", lambda: None, f"run c --measure flops -o {LONG}", "long"),
    Hostile("a result in a folder elsewhere", linked("o/c", "../../outside"), RUN, "is a link that leads out"),
    Hostile("a result that links elsewhere", linked("o/c/result.json", "../../../outside/kept"), f"{RUN} --force", "", (0,)),
    Hostile("a training log that links elsewhere", linked("o/training.jsonl", "../../outside/kept"), TRAIN, "", (0, 2)),
    Hostile("a lock that links elsewhere", linked("o/.training.lock", "../../outside/kept"), TRAIN, "", (0, 2)),
    Hostile("a picture that links elsewhere", linked("o.png", "../outside/kept"), "trace c --image i.png -o o.png --force", "", (0, 2)),
    Hostile("an output that is no Unicode", lambda: None, "run c --limit 1 -o o\udcff", "in UTF-8"),
    Hostile("an image that is no Unicode", lambda: os.rename("i.png", b"\xff.png"), "predict c \udcff.png --json", "", (0,)),
    Hostile("an output of a pipe", piped("o"), RUN),
]  # fmt: skip
HOSTILE = [*CARDS, *RESULTS, *RECIPES, *IMAGES, *WEIGHTS, *FOLDERS, *PARQUETS, *OUTPUTS]
