"""docs/plugins.md against the template: the code is what `new-plugin` writes, the table lists the suite's rules, the commands run."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from command_line import Answer, ask, lonely
from installed_plugins import installed

import glimpsezoo as gz
from glimpsezoo.testing import check_model
from glimpsezoo.testing.suite import RULES
from glimpsezoo.workflows.new_plugin import PluginNames, plugin_files

TEXT = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
NAME = "glimpsezoo-spot"
FILES = plugin_files(PluginNames.of(NAME))
EXPLAINED = [path for path in FILES if path != "README.md" and not path.endswith("__init__.py")]
ESSENCE = "essence.py"
COMMANDS = [line for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.splitlines()]


def code_of(path: str) -> list[str]:
    """The lines of the blocks that name a file, in the page's order, without blank lines."""
    blocks = re.findall(rf"^```(?:python|toml)\n# {re.escape(path)}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("path", EXPLAINED)
def test_the_page_s_code_is_the_template_s(path: str) -> None:
    assert code_of(path) == [line for line in FILES[path].splitlines() if line.strip()]


def test_every_block_of_code_names_a_file_of_the_template() -> None:
    named = re.findall(r"^```(?:python|toml)\n# (\S+)\n", TEXT, re.MULTILINE)
    assert len(named) == len(re.findall(r"^```(?:python|toml)$", TEXT, re.MULTILINE))
    assert set(named) == {*EXPLAINED, ESSENCE}


def test_the_model_takes_less_than_65_lines() -> None:
    assert len(FILES["glimpsezoo_spot/model.py"].splitlines()) < 65


@pytest.fixture(scope="module")
def essence(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The listing of section 8, imported."""
    (text,) = re.findall(rf"^```python\n# {re.escape(ESSENCE)}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    path = tmp_path_factory.mktemp("essence") / ESSENCE
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("essence", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "essence", module)
        spec.loader.exec_module(module)
        yield module


def test_the_essence_of_ram_conforms(essence: ModuleType) -> None:
    task = gz.Task((32, 28), 1, ("dark", "light"))
    findings = check_model(essence.Essence(essence.EssenceConfig(), task), training_step=essence.training_step)
    assert [str(finding) for finding in findings if finding.status != "ok"] == [
        "skipped card          the model was not loaded from a card"
    ]


def accuracy_of(essence: ModuleType, left_out: str) -> float:
    """The accuracy in the last of 120 training steps. The class is the shade of one corner; the first of two looks is anywhere."""
    torch.manual_seed(0)
    config = essence.EssenceConfig(steps=2, deviation=0.3, samples=8, hidden=32, side=4)
    model = essence.Essence(config, gz.Task((32, 32), 1, ("dark", "light")))
    labels = torch.arange(32) % 2
    images = torch.full((32, 1, 32, 32), 0.5)
    images[:, :, 22:, 22:] = labels.float().view(-1, 1, 1, 1)
    optimiser, right = torch.optim.Adam(model.parameters(), lr=0.02), list[float]()
    for step in range(120):
        noise = gz.Noise.of(step, torch.arange(32))
        phase = gz.TrainingPhase(name="main", options={}, step=step, steps=120, epoch=0, noise=noise, memory={})
        terms = essence.training_step(model, images, labels, phase)
        optimiser.zero_grad()
        torch.stack([term for name, term in terms.items() if name != left_out]).sum().backward()
        optimiser.step()
        if step >= 110:
            with torch.no_grad():
                right.append((gz.rollout(model, images, noise=noise).logits.argmax(1) == labels).float().mean().item())
    return sum(right) / len(right)


def test_the_essence_of_ram_learns_where_to_look_by_its_reward(essence: ModuleType) -> None:
    assert accuracy_of(essence, "") > 0.95
    assert accuracy_of(essence, "reinforce") < 0.8


def test_the_table_has_every_rule_with_its_sentence() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", TEXT, re.MULTILINE)
    assert rows == [(name, (rule.__doc__ or "").splitlines()[0]) for name, rule in RULES.items()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Answer]:
    """Runs a command of the page, with less training and fewer images."""
    lonely(monkeypatch, tmp_path)
    shorter = {"train": ["--set", "train.epochs=1"], "run": ["--limit", "50"]}

    def say(line: str) -> Answer:
        words = shlex.split(line)[1:]
        return ask(capsys, *words, *shorter.get(words[0], []))

    return say


def test_the_page_s_commands_run_in_its_order(run: Callable[[str], Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [line for line in COMMANDS if line.startswith("glimpsezoo ")]
    assert [line for line in COMMANDS if line not in ours] == [f"pip install -e './{NAME}[test]'", f"pytest ./{NAME}"]
    assert [line.split()[1] for line in ours] == ["new-plugin", "check", "check", "show", "train", "run"]
    assert run(ours[0]).status == 0
    with installed(tmp_path / NAME, monkeypatch):
        for line in ours[1:]:
            answer = run(line)
            assert answer.status == 0, answer.err
