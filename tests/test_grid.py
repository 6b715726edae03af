"""`run --grid FILE`: every cell is a run of its own, one table covers all of them, and shards share the work."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Answer, make_card, photo_card, photos, tree

from glimpsezoo.run.grid import Shard
from glimpsezoo.run.grid_plan import weights

Ask = Callable[..., Answer]
GRID = """
models = ["mgnet", "cnn4"]
data = ["digits"]
conditions = ["clean", "fog:3"]
seeds = [0, 1]
limit = 4
exclude = [{ model = "mgnet", condition = "clean" }]
[settings]
glimpses = [2]
"""
SMALL = 'models = ["one", "two"]\nmeasure = "accuracy"\nseeds = [0, 1]\nlimit = 4\n'

FOLDER = "out"


@pytest.fixture(autouse=True)
def as_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `--measure` is added to a command that has none, and no model is timed before a run, which takes longer than these runs."""
    monkeypatch.setattr("command_line.quickly", lambda texts: texts)
    monkeypatch.setattr("glimpsezoo.run.timing.seconds_of", lambda *_: 0.001)


@pytest.fixture
def digits(here: Path) -> Path:
    make_card(here / "zoo_cards" / "cnn4.digits")
    return here


@pytest.fixture
def desk(here: Path) -> Path:
    photos(here / "photos")
    for seed, name in enumerate(("one", "two")):
        photo_card(here / "zoo_cards" / name, size=16, seed=seed)
    (here / "grid.toml").write_text(SMALL)
    return here


def run(say: Ask, *words: str) -> Any:
    """The grid.json of a grid that went well."""
    answer = say("run", "--grid", "grid.toml", "-o", FOLDER, "--json", *words)
    assert answer.status == 0, answer.err
    return answer.json


def numbers(folder: Path) -> dict[str, Any]:
    """The results of all cells, without times and environment."""
    found = {}
    for path in sorted(folder.glob("*/*/result.json")):
        content = json.loads(path.read_text())
        run = {key: value for key, value in content.pop("run").items() if key not in {"started", "finished", "units"}}
        found[path.parent.parent.name] = {**content, "run": run, "environment": None}
    return found


def test_every_cell_is_a_run_and_one_table_covers_them(say: Ask, digits: Path):
    make_card(digits / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2, backbone="cnn4", downsample=4)
    (digits / "grid.toml").write_text(GRID)
    record = run(say)
    names = [cell["name"] for cell in record["cells"]]
    assert len(names) == len(set(names)) == 6  # 2 models x 2 conditions x 2 seeds, without mgnet on clean images
    assert "mgnet,digits,glimpses=2,fog_3,noise-seed=1" in names
    assert json.loads((digits / FOLDER / "grid.json").read_text()) == record
    rows = {(row["model"], row["settings"], row["condition"]): row for row in record["rows"]}
    assert len(rows) == 3
    assert ("mgnet.digits", "glimpses=2", "fog:3") in rows
    for row in rows.values():
        assert (row["noise_seeds"], row["data"]) == ([0, 1], "digits test")
        assert ("corrupted %" in row["numbers"]) == (row["condition"] == "fog:3")
    # A cell is what `run` measures, and its row is the mean over its seeds.
    foggy = [digits / FOLDER / f"cnn4,digits,fog_3,noise-seed={seed}" / "cnn4.digits" / "result.json" for seed in (0, 1)]
    each = [100 * json.loads(path.read_text())["corruptions"]["mean"]["value"] for path in foggy]
    spread = rows["cnn4.digits", "", "fog:3"]["numbers"]["corrupted %"]
    assert spread["each"] == pytest.approx(each)
    assert spread["mean"] == pytest.approx(sum(each) / 2)
    assert spread["sd"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    alone = say("run", "--config", foggy[0].parent.parent / "command.toml", "-o", "alone", "--json").json["results"][0]
    other = {"run": None, "environment": None, "hashes": None}
    assert {**alone, **other} == {**json.loads(foggy[0].read_text()), **other}


def test_a_repeated_grid_measures_nothing_and_a_larger_one_the_rest(say: Ask, desk: Path):
    first = run(say)
    again = say("run", "--grid", "grid.toml", "-o", FOLDER)
    assert again.status == 0
    assert "1 unit measured" not in again.err
    assert run(say)["rows"] == first["rows"]
    larger = say("run", "--grid", "grid.toml", "-o", FOLDER, "one", "--seed", "2")  # what is typed wins over the lists
    assert larger.err.count("1 unit measured") == 1
    assert "one" in larger.out
    assert "two" not in larger.out


def test_shards_are_disjoint_and_complete_and_merge(say: Ask, desk: Path):
    whole = run(say)
    expected = numbers(desk / FOLDER)
    for path in (desk / "runs").rglob("*.*"):
        if path.is_file():
            path.unlink()
    parts = [say("run", "--grid", "grid.toml", "-o", "parts", "--shard", f"{k}/3", "--json").json for k in (1, 2, 3)]
    cells = [cell["name"] for part in parts for cell in part["cells"]]
    assert sorted(cells) == sorted(cell["name"] for cell in whole["cells"])
    assert all(part["cells"] for part in parts)
    assert sorted(path.name for path in (desk / "parts").glob("grid*.json")) == [f"grid.shard-{k}-of-3.json" for k in (1, 2, 3)]
    merged = say("run", "--grid", "grid.toml", "-o", "parts")
    assert merged.status == 0
    assert "1 unit measured" not in merged.err
    record = json.loads((desk / "parts" / "grid.json").read_text())
    assert record["rows"] == whole["rows"]
    own = [{**each, "run": {**each["run"], "command": ""}, "hashes": None} for each in numbers(desk / "parts").values()]
    assert own == [{**each, "run": {**each["run"], "command": ""}, "hashes": None} for each in expected.values()]


def test_a_shard_of_very_many_takes_no_memory_for_the_others():
    assert [Shard(k, 10**15).chosen([5, 1, 4]) for k in (1, 3, 4, 10**15)] == [[0], [1], [], []]


def test_shards_of_any_weights_are_disjoint_complete_and_balanced():
    draw = random.Random(0)
    for _ in range(300):
        images = [draw.choice([0, 10, draw.randint(1, 100_000)]) for _ in range(draw.randint(1, 60))]
        of = draw.randint(1, 20)
        shards = [Shard(k, of).chosen(images) for k in range(1, of + 1)]
        assert sorted(place for shard in shards for place in shard) == list(range(len(images)))
        loads = [sum(images[place] for place in shard) for shard in shards]
        # Graham (1969): the longest first is at most 4/3 - 1/(3 m) of the optimum, which is no less than these two.
        assert max(loads) <= (4 / 3) * max(sum(images) / of, sum(sorted(images, reverse=True)[of - 1 : of + 1]), *images) + len(images)
        if len(images) >= of:
            assert all(shards)


def test_a_cell_weighs_as_many_images_as_it_measures(digits: Path):
    import torch

    from glimpsezoo.run.request import RunRequest

    base = {"data": "digits", "device": torch.device("cpu")}
    asked = [("accuracy",), ("accuracy", "fog:3"), ("accuracy", "fog"), ("accuracy", "pgd", "fog:1")]
    assert weights([RunRequest(models=("cnn4",), measures=each, limit=12, **base) for each in asked]) == [12, 24, 72, 36]
    assert weights([RunRequest(models=("cnn4",), measures=asked[1], **base)]) == [2980 + 500]


def test_a_failing_cell_fails_alone(say: Ask, digits: Path):
    make_card(digits / "zoo_cards" / "broken.digits")
    (digits / "zoo_cards" / "broken.digits" / "model.safetensors").write_bytes(b"not weights")
    (digits / "grid.toml").write_text('models = ["broken.digits", "cnn4"]\nmeasure = ["accuracy"]\nlimit = 4\n')
    answer = say("run", "--grid", "grid.toml", "-o", FOLDER)
    assert answer.status == 1
    assert "broken.digits" in answer.out
    assert "FAILED" in answer.out
    assert "expects other weights" in answer.out
    record = json.loads((digits / FOLDER / "grid.json").read_text())
    assert [(cell["model"], cell["status"]) for cell in record["cells"]] == [("broken.digits", "failed"), ("cnn4", "done")]
    assert "expects other weights" in record["cells"][0]["error"]
    assert [row["model"] for row in record["rows"]] == ["cnn4.digits"]
    # So in a plan; cells that fail for one reason are one line.
    (digits / "grid.toml").write_text('models = ["mgnet", "cnn4"]\ndata = ["digits"]\nseeds = [0, 1]\nlimit = 4\nmeasure = "accuracy"\n')
    answer = say("run", "--grid", "grid.toml", "--dry-run")
    assert answer.status == 1
    assert answer.out.count("failed: mgnet,digits,noise-seed=0 and 1 other cell: expected a trained card of 'mgnet'") == 1


def test_a_plan_counts_a_unit_of_several_cells_once(say: Ask, digits: Path):
    (digits / "grid.toml").write_text('models = ["cnn4"]\nconditions = ["clean", "fog:3", "fog:5"]\nlimit = 4\n')
    plan = say("run", "--grid", "grid.toml", "--dry-run", "--json").json
    assert [cell["units"] for cell in plan["cells"]] == [1, 1, 1]  # all read the clean images
    assert "3 units, 0 stored; time: unknown for cnn4.digits" in say("run", "--grid", "grid.toml", "--dry-run").out
    assert run(say)["cells"]
    assert [cell["stored"] for cell in say("run", "--grid", "grid.toml", "--dry-run", "--json").json["cells"]] == [1, 1, 1]


def test_a_dry_run_plans_every_cell_and_estimates_from_what_is_measured(say: Ask, desk: Path):
    before = tree(desk)
    words = ("run", "--grid", "grid.toml", "--dry-run")
    plan = say(*words, "--json").json
    assert tree(desk) == before
    assert [(cell["units"], cell["stored"], cell["seconds"]) for cell in plan["cells"]] == 4 * [(1, 0, None)]
    assert "time: unknown for one and two" in say(*words).out
    assert say("run", "--grid", "grid.toml", "one").status == 0
    plan = say(*words, "--json").json
    assert [cell["stored"] for cell in plan["cells"]] == [1, 1, 0, 0]
    assert "unknown for two," in say(*words).out
    assert say("run", "--grid", "grid.toml", "two", "--seed", "0").status == 0
    plan = say(*words, "--json").json
    assert [cell["stored"] for cell in plan["cells"]] == [1, 1, 1, 0]
    assert 0 < plan["cells"][3]["seconds"] < 60  # seed 1 takes as long as seed 0
    assert "core-hours" in say(*words).out
    assert [len(say(*words, "--shard", f"{k}/3", "--json").json["cells"]) for k in (1, 2, 3)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("text", "words", "parts"),
    [
        ("models = ['cnn4']\nlimt = 3", (), ("'limt'", "'limit'")),
        ("models = ['cnn5']", (), ("'cnn5'", "'cnn4'")),
        ("models = ['cnn4']\ndata = ['digit']", (), ("'digit'", "'digits'")),
        ("models = []", (), ("at least one item", "'models'", "empty list")),
        ("models = ['cnn4']\nseeds = []", (), ("at least one item", "'seeds'")),
        ("models = ['cnn4']\n[settings]\nglimpses = []", (), ("at least one item", "'settings.glimpses'")),
        ("data = ['digits']", (), ("expects models, got none",)),
        ("models = ['mgnet']\n[settings]\nglimpse = [1]", (), ("'glimpse'", "'glimpses'")),
        ("models = ['mgnet']\ndata = ['digits']\n[settings]\ndata.sed = [1]", (), ("'data.sed'", "'data.seed'")),
        ("models = ['cnn4']\nconditions = ['fgo:3']", (), ("'fgo:3'", "'fog'")),
        ("models = ['cnn4']\nmeasure = 'acuracy'", (), ("'acuracy'", "'accuracy'")),
        ("models = ['cnn4']\nseeds = ['one']", (), ("whole numbers", "'seeds'", "'one'")),
        ("models = ['cnn4']\nseeds = [-1]", (), ("whole numbers", "-1")),
        ("models = ['cnn4']\nsettings = 3", (), ("a table whose values are lists", "'settings'")),
        ("models = ['cnn4', 'cnn4']", (), ("each cell once", "cnn4")),
        ("models = ['cnn4', 'cnn4.digits']", (), ("each cell once", "cnn4, noise-seed=0 and cnn4.digits")),
        ("models = ['cnn4']\nseeds = [1, 1]", (), ("each cell once", "noise-seed=1")),
        ("models = ['cnn4']\nseeds = [1]\nseed = 1", (), ("'seeds' or 'seed'",)),
        ("models = ['cnn4']\nexclude = [{ modl = 'cnn4' }]", (), ("'exclude'", "'modl'", "'model'")),
        ("models = ['cnn4']\nexclude = [{ model = 'cnn4' }]", (), ("got none of 1 cell",)),
        ("models = ['cnn4']\nexclude = [{ model = 'cnn5' }]", (), ("'exclude'", "model = 'cnn5'", "names none", "model is 'cnn4'")),
        ("models = ['cnn4']\nexclude = [{ model = 'cnn5' }]", ("cnn4.digits",), ("model = 'cnn5'", "names none")),
        ("models = ['mgnet']\n[settings]\nglimpses = [2, 'two']", (), ("cell mgnet, glimpses=two", "valid integer")),
        ("models = ['mgnet']\n[settings]\nglimpses = [2, -1]", (), ("cell mgnet, glimpses=-1", "greater than")),
        ("models = ['mgnet@glimpses=0.5', 'cnn4']", (), ("cell mgnet@glimpses=0.5", "valid integer")),
        ("models = ['cnn4']\n[settings]\ndata.seed = ['x']", (), ("cell cnn4, data.seed=x", "valid integer")),
        ("models = ['cnn4']\nconditions = ['pgd']\n[settings]\npgd.steps = ['x']", (), ("cell cnn4, pgd.steps=x, pgd", "valid integer")),
        ("models = ", (), ("a TOML file", "'grid.toml'")),
        ("models = ['cnn4']", ("--shard", "0/4"), ("K from 1 to N", "'0/4'", "3/16")),
        ("models = ['cnn4']", ("--shard", "5/4"), ("K from 1 to N", "'5/4'")),
        ("models = ['cnn4']", ("--shard", "4"), ("K from 1 to N", "'4'")),
        ("models = ['cnn4']", ("--shard", f"1/{'9' * 5000}"), ("K from 1 to N", "'1/999")),
        ("models = ['cnn4']", ("--update-card",), ("no --update-card",)),
        ("models = ['cnn4', 3]", (), ("a list of names", "'models'", "3")),
        ("models = [['cnn4']]", (), ("a list of names", "'models'")),
        ("models = ['cnn4']\nconditions = ['clean', 'fog:9']", (), ("severity from 1 to 5", "'9'")),
        ("models = ['cnn4']\nconditions = ['pgd:x']", (), ("eps=x", "pgd")),
        ("models = ['cnn4']\nengine = 'proceses:2'", (), ("--engine", "'proceses:2'")),
        ("models = ['cnn4']\nlimit = 0", (), ("--limit", "0")),
        ("models = ['cnn4']", ("--store", "nonsense://here"), ("nonsense://here",)),
        ("models = ['cnn4']", ("--ray-address", "here:1"), ("--ray-address", "--engine ray", "'here:1'")),
    ],
)
def test_what_is_wrong_in_a_grid_is_one_line_before_anything_is_measured(
    say: Ask, digits: Path, text: str, words: tuple[str, ...], parts: tuple[str, ...]
):
    (digits / "grid.toml").write_text(text)
    before = tree(digits)
    answer = say("run", "--grid", "grid.toml", *words)
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1), answer.err
    assert all(part in answer.err for part in parts), answer.err
    assert tree(digits) == before


def test_a_shard_without_a_grid_is_one_line(say: Ask):
    answer = say("run", "cnn4", "--shard", "1/2")
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert "--grid FILE" in answer.err


def test_settings_reach_only_what_declares_them(say: Ask, digits: Path):
    (digits / "grid.toml").write_text(
        'models = ["mgnet", "cnn4"]\ndata = ["digits"]\nconditions = ["clean", "pgd:4/255"]\nlimit = 4\n'
        'checkpoint = "none"\nexclude = [{ model = "mgnet", condition = "pgd:4/255" }]\n'
        '[settings]\n"mgnet.alpha" = [0.25, 0.5]\n"pgd.steps" = 2\ndata = { seed = [1] }\n'
    )
    plan = say("run", "--grid", "grid.toml", "--dry-run", "--json").json
    assert [cell["name"] for cell in plan["cells"]] == [
        "mgnet,digits,mgnet.alpha=0.25,data.seed=1,clean,noise-seed=0",
        "mgnet,digits,mgnet.alpha=0.5,data.seed=1,clean,noise-seed=0",
        "cnn4,digits,data.seed=1,clean,noise-seed=0",
        "cnn4,digits,pgd.steps=2,data.seed=1,pgd_4_255,noise-seed=0",
    ]
    assert [cell["error"] for cell in plan["cells"]] == [None] * 4


def test_settings_of_exits_reach_no_cell_without_them(say: Ask, digits: Path):
    (digits / "grid.toml").write_text(
        'models = ["mgnet"]\ndata = ["digits"]\nconditions = ["clean", "fog:1", "slowdown"]\nlimit = 4\n'
        'checkpoint = "none"\n[settings]\n"anytime.threshold" = [0.5, 0.9]\n'
    )
    plan = say("run", "--grid", "grid.toml", "--dry-run", "--json").json
    assert [cell["name"] for cell in plan["cells"] if not cell["error"]] == [
        "mgnet,digits,clean,noise-seed=0",
        "mgnet,digits,fog_1,noise-seed=0",
        "mgnet,digits,anytime.threshold=0.5,slowdown,noise-seed=0",
        "mgnet,digits,anytime.threshold=0.9,slowdown,noise-seed=0",
    ]
