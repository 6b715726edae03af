"""docs/hooks.md against the code: signatures, fields and defaults are all there and true, and its plugin works as it stands."""

import dataclasses
import inspect
import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import torch
from test_layers import exported, imports

from glimpsezoo import specs
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.loading import open_data
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.calibration import given_rule
from glimpsezoo.specs import (
    AttackSpec,
    CorruptionSpec,
    DatasetSpec,
    ExitRuleSpec,
    ImporterSpec,
    LoggerSpec,
    ModelSpec,
    PaperSpec,
    PolicySpec,
    Provenance,
    Spec,
    Task,
    load_string,
)
from glimpsezoo.training.job import TrainingPhase
from glimpsezoo.training.loggers import Loggers
from glimpsezoo.zoo import hooks
from glimpsezoo.zoo.models import create_model
from glimpsezoo.zoo.names import Assignments
from glimpsezoo.zoo.papers import PrintedTables
from glimpsezoo.zoo.plugins import HOOKS, Registry, load_plugins, registry
from glimpsezoo.zoo.recipes import find_recipe

TINY_TASK = Task((16, 16), 1, ("a", "b", "c"))
TEXT = (Path(__file__).parents[1] / "docs" / "hooks.md").read_text(encoding="utf-8")
DATACLASSES = {name: kind for name, kind in vars(specs).items() if dataclasses.is_dataclass(kind) and kind.__module__ == specs.__name__}


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"docs/hooks.md has no section {title!r}"
    return found[1]


def code_files() -> dict[str, str]:
    """The code blocks that name a file, joined in the page's order."""
    files: dict[str, str] = {}
    for _, path, code in re.findall(r"^```(python|toml)\n# (\S+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        files[path] = files.get(path, "") + code + "\n"
    return files


def rows(title: str) -> dict[str, str]:
    """Field -> default of the table whose first column is headed by `title`."""
    found = re.search(rf"^\| `{title}` \| default \| meaning \|\n\| --- \| --- \| --- \|\n((?:\|.*\|\n)+)", TEXT, re.MULTILINE)
    assert found, f"docs/hooks.md has no table of {title}"
    lines = [re.fullmatch(r"\| `(\w+)` \| (.+?) \| (\S.*) \|", line) for line in found[1].splitlines()]
    assert all(lines), f"a row of the table of {title} is not '| `field` | default | meaning |'"
    return {line[1]: line[2] for line in lines if line}


def default_of(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{dict(field.default_factory())!r}`"
    return "required" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_every_hook_has_a_section_with_its_exact_signature_and_an_example(hook: str) -> None:
    text = section(f"`{hook}`")
    source = inspect.getsource(getattr(hooks, hook))
    signature = next(line for line in source.splitlines() if line.startswith("def ")).partition("  #")[0]
    assert f"```\n{signature}\n```" in text
    assert f"@hookimpl\n{signature}" in text
    assert f"(#{hook})" in TEXT


def test_no_section_documents_a_hook_that_does_not_exist() -> None:
    specified = {name for name, value in vars(hooks).items() if inspect.isfunction(value)}
    assert set(re.findall(r"^## `(\w+)`$", TEXT, re.MULTILINE)) == specified == set(HOOKS)


@pytest.mark.parametrize("name", sorted(DATACLASSES))
def test_every_field_is_described_with_its_default(name: str) -> None:
    inherited = {field.name for field in dataclasses.fields(Spec)} if name != "Spec" and issubclass(DATACLASSES[name], Spec) else set()
    expected = {field.name: default_of(field) for field in dataclasses.fields(DATACLASSES[name]) if field.name not in inherited}
    assert rows(name) == expected


@pytest.mark.parametrize(("hook", "kind"), HOOKS.items())
def test_the_table_of_a_spec_stands_in_the_section_of_its_hook(hook: str, kind: type[Spec]) -> None:
    assert f"| `{kind.__name__}` | default |" in section(f"`{hook}`")


@pytest.mark.parametrize("path", [path for path in code_files() if path.endswith(".py")])
def test_the_page_imports_from_glimpsezoo_alone(path: str) -> None:
    assert [f"{name} in line {line}" for name, line in imports(code_files()[path]) if not exported(name)] == []


def install_glance(folder: Path) -> None:
    """Put the page's plugin, from its own code blocks, into a folder of sys.path."""
    files = code_files()
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for path, code in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(code, encoding="utf-8")
    (point, module), *others = project["entry-points"]["glimpsezoo"].items()
    assert not others
    info = folder / f"glimpsezoo_glance-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[glimpsezoo]\n{point} = {module}\n")


@pytest.fixture
def glance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The page's plugin, installed from its own code blocks."""
    registry()  # that of the process is kept from now on, so it must not see this plugin
    install_glance(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return load_plugins([found for distribution in distributions(path=[str(tmp_path)]) for found in distribution.entry_points])


def test_the_pages_plugin_registers_something_by_every_hook(glance: Registry) -> None:
    plugin = glance.plugins[-1]
    assert plugin.error is None
    assert plugin.provenance == Provenance("glance", "glimpsezoo-glance", "1.0")
    assert {type(spec) for spec in plugin.specs} == set(HOOKS.values())


def test_the_pages_model_learns_the_pages_data(glance: Registry) -> None:
    spec, data = glance.find(ModelSpec, "glance"), glance.find(DatasetSpec, "shades")
    assert data.task is not None
    opened = {split: open_data(data, "shades", split, {}) for split in data.splits}
    assert {split: len(examples) for split, examples in opened.items()} == data.splits
    torch.manual_seed(0)
    model = load_string(spec.model)(load_string(spec.config)(side=16), data.task)
    step, optimiser = load_string(str(spec.training_step)), torch.optim.Adam(model.parameters(), lr=0.02)

    def batch(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        examples = [opened[split][index] for index in range(len(opened[split]))]
        return torch.stack([example.image for example in examples]), torch.tensor([example.label for example in examples])

    images, labels = batch("train")
    noise = Noise.of(0, torch.arange(len(images)))
    losses = []
    for index in range(20):
        phase = TrainingPhase(name="main", options={}, step=index, steps=20, epoch=index, noise=noise, memory={})
        loss = step(model, images, labels, phase)["cross_entropy"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert rollout(model, batch("test")[0]).logits.shape == (32, 2)


def test_the_pages_recipe_is_one(glance: Registry) -> None:
    recipe = find_recipe(glance.find(ModelSpec, "glance"), "glance.digits")
    assert (recipe.batch_size, recipe.phase[0].epochs) == (64, 10)


def test_the_pages_settings_and_defaults_are_accepted(glance: Registry) -> None:
    spec = glance.find(ModelSpec, "glance")
    config = load_string(spec.config)
    assert {data: config.parse(values, owner="glance").side for data, values in spec.defaults.items()} == {"tmnist": 14}


def test_the_pages_exit_rule_exits_when_two_steps_agree(glance: Registry) -> None:
    """As a command builds it."""
    rule = given_rule(Assignments.parse(["anytime.rule=settled", "anytime.threshold=0.5"], [], scopes=["anytime"]), glance)
    assert rule is not None
    assert rule.name == "settled"
    one, other = [9.0, 0.0], [0.0, 9.0]
    logits = torch.tensor([[one, other, other], [other, other, one]])
    assert [rule.exits(logits[:, :steps]).tolist() for steps in (1, 2, 3)] == [[False, False], [False, True], [True, False]]
    with pytest.raises(GlimpseZooError, match="from 0 to below 1"):
        load_string(glance.find(ExitRuleSpec, "settled").rule)(1)


def test_the_pages_policy_looks_at_the_corner(glance: Registry) -> None:
    corner = load_string(glance.find(PolicySpec, "corner").policy)()
    model = create_model("mgnet", task=Task((24, 20), 1, ("a", "b")), backbone="cnn4", downsample=1).following(corner)
    looks = rollout(model, torch.zeros(2, 1, 24, 20)).looks
    assert looks[0].decision.regions.scale.tolist() == [1, 1]
    assert all((look.decision.regions.centre == look.decision.regions.scale[:, None] - 1).all() for look in looks[1:])


def test_the_pages_corruption_darkens_each_image_by_its_own_noise(glance: Registry) -> None:
    corrupt = load_string(glance.find(CorruptionSpec, "dusk").corrupt)
    images, noise = torch.full((2, 3, 64, 64), 0.8), Noise.of(0, torch.arange(2))
    means = [corrupt(images, severity, "64", noise).mean().item() for severity in range(1, 6)]
    assert means == sorted(means, reverse=True)
    torch.testing.assert_close(corrupt(images[1:], 3, "64", noise.select(torch.tensor([1]))), corrupt(images, 3, "64", noise)[1:])


@pytest.mark.parametrize("name", ["grain", "ascent"])
def test_the_pages_attacks_stay_within_eps_and_find_errors(glance: Registry, name: str) -> None:
    spec = glance.find(AttackSpec, name)
    attack = load_string(spec.attack)(load_string(spec.config).parse({"eps": "64/255", "steps": "20"}, owner=name))
    model = load_string(glance.find(ModelSpec, "glance").model)(load_string("glimpsezoo_glance.config:GlanceConfig")(side=8), TINY_TASK)
    images = torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = rollout(model, images).logits.argmax(1)
        attacked = attack.apply(images, labels, torch.arange(16), model)
        assert (attacked - images).abs().max() <= 64 / 255 + 1e-6
        assert (rollout(model, attacked).logits.argmax(1) != labels).any()


def test_the_pages_importer_makes_what_the_model_loads(glance: Registry, tmp_path: Path) -> None:
    weight, bias = torch.randn(3, 64), torch.randn(3)
    torch.save({"W": weight, "b": bias}, tmp_path / "released.pt")
    config, task, tensors, notes = load_string(glance.find(ImporterSpec, "glance").importer)(tmp_path / "released.pt", {})
    assert isinstance(task, Task)
    assert notes
    model = load_string(glance.find(ModelSpec, "glance").model)(config, task)
    model.load_state_dict(tensors)
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(rollout(model, images).logits, images.flatten(1) @ weight.T + bias)


def test_the_pages_logger_writes_the_losses(glance: Registry, tmp_path: Path) -> None:
    loggers = Loggers([glance.find(LoggerSpec, "csv")], tmp_path, "glance.digits", {"model": "glance"})
    loggers.log(17, {"loss/cross_entropy": 0.5, "lr": 0.1, "epoch": 1})
    loggers.close()
    assert (tmp_path / "losses.csv").read_text() == '# glance.digits: {"model": "glance"}\n17,loss/cross_entropy,0.5\n'


def test_the_pages_paper_has_tables_whose_cards_the_recipes_train(glance: Registry) -> None:
    (table,) = PrintedTables.of(glance.find(PaperSpec, "glance-2024")).table
    assert [(row.printed, row.cost) for row in table.row] == [(91.5, 2560)]
    assert find_recipe(glance.find(ModelSpec, "glance"), str(table.row[0].card))
