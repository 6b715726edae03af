"""The Python interface does what the command does."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ask, lonely, make_card, photos
from data_files import encoded, mnist, picture, write_parquet

import glimpsezoo as gz
from glimpsezoo import Example, GlimpseZooError, ImageData


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return lonely(monkeypatch, tmp_path)


def test_the_python_of_the_tutorial_runs(capsys: pytest.CaptureFixture[str]):
    text = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(snippet, "tutorial.md", "exec"), names)
    assert names["early"].flops.macs.mean < names["result"].flops.macs.mean
    assert (names["result"].accuracy.top1.n, len(names["digits"])) == (500, len(gz.open_data("digits", "calibration")))
    assert "tensor(" in capsys.readouterr().out


def test_models_and_cards_are_listed_by_pattern(zoo: Path):
    make_card(zoo / "cnn4.digits")
    assert gz.list_models("cnn4*") == ["cnn4", "cnn4.digits"]
    assert {"mgnet", "timm:NAME", "cnn4.digits"} <= set(gz.list_models())
    assert gz.list_models() == sorted(gz.list_models())
    assert gz.list_models("nothing") == []


def test_a_card_is_loaded_by_its_name_its_model_or_its_folder(zoo: Path):
    make_card(zoo / "mgnet.digits", "mgnet", glimpses=2, seed=7)
    wanted = gz.create_model("mgnet", data="digits", glimpses=2, seed=7).state_dict()
    for model in (gz.load("mgnet.digits"), gz.load("mgnet"), gz.load("mgnet", data="digits"), gz.load(str(zoo / "mgnet.digits"))):
        assert not model.training
        assert (model.steps, model.task.image_size) == (2, (64, 64))
        assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    assert gz.load("mgnet.digits", policy="centre").policy == "centre"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mgnt", {}, "expected a model or a card, got 'mgnt'.*'mgnet'"),
        ("cnn4", {}, "expected a trained card of 'cnn4' for 'digits', got none"),
        ("mgnet", {"data": "mnist"}, r"card of 'mgnet' for 'mnist', got none \(it has mgnet.digits\)"),
        ("mgnet", {"biases": True}, "biases=True contradicts the trained card"),
        ("mgnet", {"glimpse": 2}, "mgnet has no setting 'glimpse': did you mean 'glimpses'"),
        ("mgnet", {"glimpses": 0}, "glimpses of mgnet: .* greater than or equal to 1, got 0"),
    ],
)
def test_what_cannot_be_loaded_says_why(zoo: Path, name: str, settings: dict[str, object], message: str):
    make_card(zoo / "mgnet.digits", "mgnet", glimpses=2)
    with pytest.raises(GlimpseZooError, match=message):
        gz.load(name, **settings)  # type: ignore[arg-type]


def test_an_untrained_model_follows_from_task_settings_and_seed():
    task = gz.Task((32, 32), 3, ("cat", "dog"))
    model = gz.create_model("mgnet", task=task, backbone="cnn4", downsample=2, glimpses=2)
    assert gz.rollout(model, torch.rand(3, 3, 32, 32)).logits.shape == (3, 2)
    assert not model.training
    first, again, other = (gz.create_model("cnn4", data="digits", seed=seed).head.bias for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("data", [None, "folder:somewhere"])
def test_an_untrained_model_needs_a_task(data: str | None):
    with pytest.raises(GlimpseZooError, match="expected a task, or the name of data that declare one, got"):
        gz.create_model("cnn4", data=data)


def test_any_data_set_opens_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    digits = gz.open_data("digits")
    assert (digits.info.name, digits.info.split, len(digits)) == ("digits", "test", 2980)
    assert gz.open_data("digits", "calibration").info.split == "calibration"
    assert not torch.equal(gz.open_data("digits", seed=1)[0].image, digits[0].image)
    assert torch.equal(gz.open_data("digits", seed="1")[0].image, gz.open_data("digits", seed=1)[0].image)

    monkeypatch.chdir(photos(tmp_path))
    train, test = (gz.open_data(f"folder:{folder}", split, size=32) for folder, split in ((tmp_path, "train"), (".", "test")))
    assert (train.task.classes, train.task.image_size, len(test)) == (("dark", "light"), (32, 32), 10)
    assert {test[index].label for index in range(len(test))} == {0, 1}


def test_data_open_from_a_folder(tmp_path: Path):
    mnist(tmp_path / "copy", test=12)
    model = gz.create_model("cnn4", data="mnist")
    copied = gz.open_data("mnist", data_dir=tmp_path / "copy")
    assert (len(copied), copied[3].image.shape) == (12, (1, 28, 28))
    by_data = gz.evaluate(model, copied)
    for data_dir in (tmp_path / "copy", str(tmp_path / "copy")):
        assert gz.evaluate(model, "mnist", data_dir=data_dir).accuracy == by_data.accuracy

    content = [encoded(picture(seed)) for seed in range(6)]
    write_parquet(tmp_path / "mine" / "test-00000-of-00001.parquet", content, [0, 1] * 3, ["cat", "dog"])
    write_parquet(tmp_path / "mine" / "train-00000-of-00001.parquet", content * 4, [0, 1] * 12, ["cat", "dog"])
    mine = gz.open_data("hf:me/photos", data_dir=tmp_path / "mine", size=16)
    assert (len(mine), mine.task.classes, mine[0].image.shape) == (6, ("cat", "dog"), (3, 16, 16))
    with pytest.raises(GlimpseZooError, match=r"data_dir=.*copy.*leave data_dir out"):
        gz.evaluate(model, copied, data_dir=tmp_path / "copy")


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("digitss",), {}),
        (("digits",), {"size": 3}),
        (("digits",), {"seed": "x"}),
        (("digits",), {"data_dir": "nowhere"}),
        (("folder:nowhere",), {}),
        (("timm:resnet18",), {}),
    ],
)
def test_data_that_cannot_be_opened_raise_what_run_prints(
    zoo: Path, capsys: pytest.CaptureFixture[str], words: tuple[str], given: dict[str, Any]
):
    settings = [text for key, value in given.items() if key != "data_dir" for text in ("--set", f"data.{key}={value}")]
    folder = ["--data-dir", given["data_dir"]] if "data_dir" in given else []
    answer = ask(capsys, "run", "cnn4", "--checkpoint", "none", "--data", *words, *folder, *settings)
    typed = {key: str(value) for key, value in given.items()}
    with pytest.raises(GlimpseZooError) as raised:
        gz.open_data(*words, **typed)
    assert answer.status == 2
    assert answer.err.strip().splitlines()[-1] == f"glimpsezoo: {raised.value}"


def test_an_unknown_split_names_the_nearest():
    with pytest.raises(GlimpseZooError, match=r"'tset'.*'test'"):
        gz.open_data("digits", "tset")


def test_evaluating_gives_what_the_command_writes(zoo: Path, capsys: pytest.CaptureFixture[str]):
    make_card(zoo / "mgnet.digits", "mgnet", glimpses=2)
    written = ask(capsys, "run", "mgnet", "--limit", "40", "--json").json["results"][0]
    found = gz.evaluate(gz.load("mgnet.digits"), "digits", limit=40, device="cpu")
    assert found.accuracy.model_dump(mode="json") == written["accuracy"]
    assert found.flops.model_dump(mode="json") == written["flops"]
    assert (len(found.rows), found.rows.steps) == (40, 2)
    assert "array" not in repr(found)
    one_by_one = gz.evaluate(gz.load("mgnet.digits"), "digits", limit=40, batch_size=1)
    assert one_by_one.rows.prediction.tolist() == found.rows.prediction.tolist()


def test_evaluating_writes_nothing(zoo: Path):
    gz.evaluate(gz.create_model("cnn4", data="digits"), "digits", limit=5)
    assert list(zoo.parent.iterdir()) == [zoo]


def test_evaluating_data_that_are_open_and_other_splits(zoo: Path):
    model = gz.create_model("cnn4", data="digits")
    calibration = gz.open_data("digits", "calibration")
    by_name, by_data = gz.evaluate(model, "digits", split="calibration", limit=20), gz.evaluate(model, calibration, limit=20)
    assert by_name.accuracy == by_data.accuracy
    assert by_name.rows.id.tolist() == by_data.rows.id.tolist()
    assert gz.evaluate(model, calibration, split="calibration", limit=20).accuracy == by_data.accuracy
    with pytest.raises(GlimpseZooError, match=r"split='test', got the calibration split.*leave split out"):
        gz.evaluate(model, calibration, split="test", limit=20)


def test_an_exit_rule_saves_what_it_skips():
    model = gz.create_model("mgnet", data="digits")
    whole, early = (gz.evaluate(model, limit=10, exit_rule=rule) for rule in (None, gz.Confidence(0.0)))
    assert set(early.rows.exit_step.tolist()) == {1}
    assert set(whole.rows.exit_step.tolist()) == {3}
    assert early.flops.macs.mean < 0.5 * whole.flops.macs.mean


class Cursed(ImageData):
    """Digits whose third image nobody can read."""

    def __init__(self) -> None:
        self.data = gz.open_data("digits")
        self.info, self.task = self.data.info, self.data.task

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Example:
        if index == 2:
            raise RuntimeError("cursed")
        return self.data[index]


def test_what_goes_wrong_while_evaluating_is_raised():
    model = gz.create_model("cnn4", data="digits")
    with pytest.raises(RuntimeError, match="cursed"):
        gz.evaluate(model, Cursed())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "digitss"}, "expected the name of a data set, got 'digitss': did you mean 'digits'"),
        ({"split": "tset"}, "expected a split of digits, got 'tset'"),
        ({"limit": 0}, "1 image or more, got 0"),
        ({"batch_size": 0}, "expected a batch size of at least 1"),
        ({"data": "folder:nowhere"}, "nowhere"),
        ({"precision": "bfloat16"}, "precision expects float32 or bf16, got 'bfloat16'"),
        ({"device": "tpu9"}, "expected a device of this machine .*, got 'tpu9'"),
    ],
)
def test_what_cannot_be_evaluated_says_why(given: dict[str, object], message: str):
    model = gz.create_model("cnn4", data="digits")
    with pytest.raises(GlimpseZooError, match=message):
        gz.evaluate(model, **given)  # type: ignore[arg-type]


def test_evaluating_on_other_classes_is_refused():
    model = gz.create_model("cnn4", task=gz.Task((64, 64), 1, ("odd", "even")))
    with pytest.raises(GlimpseZooError, match="expected data of the model's 2 classes"):
        gz.evaluate(model, "digits", limit=5)
