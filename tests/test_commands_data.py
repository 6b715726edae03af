"""What commands say of data that nobody declared, and that nothing measured is ever filed under other data."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from command_line import Answer, make_card
from data_files import dark_and_light, encoded, flat, save, write_parquet
from PIL import Image

from glimpsezoo.measures.result import Data

MEASURED = ("--set", "data.size=16", "--checkpoint", "none", "--measure", "accuracy")


def data_of(answer: Answer) -> dict[str, Any]:
    return answer.json["results"][0]["data"]


def top1(answer: Answer) -> float:
    return answer.json["results"][0]["accuracy"]["top1"]["value"]


def test_what_was_inferred_is_said_in_one_line_and_stands_in_the_result(say: Any, here: Path) -> None:
    dark_and_light(here / "set" / "Training", "glioma", "notumor")
    dark_and_light(here / "set" / "Testing", "glioma", "notumor", count=3)
    (here / "set" / "Testing" / "glioma" / ".DS_Store").write_text("")
    (here / "set" / "Testing" / "glioma" / "0.png").write_bytes(encoded(Image.new("RGBA", (16, 16), (255, 255, 255, 100))))
    answer = say("run", "cnn4", "--data", "folder:set", *MEASURED, "--json")
    line = (
        "folder:set: 2 classes (glioma, notumor); train from Training, calibration from every 10th of Training of each class, test from "
        "Testing; 6 test images at 16 x 16, RGB, upright by EXIF, transparency over black; left out: hidden or of the system: 1 (.DS_Store)"
    )
    assert line in answer.err.splitlines()
    data = data_of(answer)
    assert data["inferred"]["classes"] == ["glioma", "notumor"]
    assert data["inferred"]["splits"]["test"] == "Testing"
    assert data["inferred"]["left_out"] == {"hidden or of the system": "1 (.DS_Store)"}
    assert data["conversions"] == {"laid over black": 1}
    assert "1 image laid over black" in say("run", "cnn4", "--data", "folder:set", *MEASURED).out.replace("\n", " ")
    told = say("show", "folder:set", "--set", "data.size=16", "--json").json
    assert (told["classes"], told["fingerprint"]) == (["glioma", "notumor"], data["fingerprint"])
    assert told["splits"] == {"train": 18, "calibration": 2, "test": 6}


def test_many_classes_are_named_in_short_in_the_line_and_in_full_in_the_result(say: Any, here: Path) -> None:
    for k in range(40):
        save(flat(k), *(here / "set" / f"class{k:02}" / f"{n}.png" for n in range(5)))
    answer = say("run", "cnn4", "--data", "folder:set", *MEASURED, "--json")
    assert "40 classes (class00, class01, class02, class03, class04, class05, ...)" in answer.err
    assert len(data_of(answer)["inferred"]["classes"]) == 40


def test_results_from_before_say_nothing_of_it() -> None:
    old = {"name": "digits", "source": "s", "revision": None, "fingerprint": "f", "split": "test", "examples": 1, "skipped": 0}
    data = Data.model_validate({**old, "image_size": (8, 8), "channels": 1, "classes": 10})
    assert (data.inferred, data.conversions) == (None, {})


def test_labels_that_are_turned_round_are_measured_anew(say: Any, here: Path) -> None:
    for split in ("train", "test"):
        dark_and_light(here / "set" / split)
    for file in (here / "set").rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    words = ("run", "cnn4", "--data", "folder:set", *MEASURED, "--json")
    first = top1(say(*words))
    test = here / "set" / "test"
    (test / "dark").rename(here / "t")
    (test / "light").rename(test / "dark")
    (here / "t").rename(test / "light")
    turned = say(*words)
    assert "1 unit measured, 0 reused" in turned.err
    assert top1(turned) == pytest.approx(1 - first)
    assert top1(say(*words, "--fresh")) == top1(turned)
    assert "0 units measured, 1 reused" in say(*words).err


def test_fresh_files_nothing_under_a_digest_that_only_a_cache_remembers(say: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(here / "home"))
    monkeypatch.setattr("glimpsezoo.data.digests.SETTLED", -1.0)
    dark_and_light(here / "set", count=5)
    words = ("run", "cnn4", "--data", "folder:set", *MEASURED, "--json")
    before = data_of(say(*words))["fingerprint"]
    for kept in (here / "home" / "file-digests").iterdir():
        files = json.loads(kept.read_text())
        files["files"] = {name: [mark, "0" * 64] for name, (mark, _) in files["files"].items()}
        kept.write_text(json.dumps(files))
    assert data_of(say(*words))["fingerprint"] != before
    assert data_of(say(*words, "--fresh"))["fingerprint"] == before


def test_a_hub_name_is_never_satisfied_by_a_folder_of_that_name(say: Any, here: Path) -> None:
    dark_and_light(here / "ethz" / "food101", "cat", "dog")
    for name in ("hf:ethz/food101", "hf:ethz/food101@0123456789abcdef0123456789abcdef01234567"):
        for command in (("run", "cnn4", "--data", name, *MEASURED), ("show", name)):
            answer = say(*command)
            assert answer.status == 2
            assert "cannot reach the Hub for ethz/food101" in answer.err


@pytest.mark.parametrize("name", ["folder:nonexistent", "folder:empty"])
def test_show_of_data_that_are_not_there_is_an_error(say: Any, here: Path, name: str) -> None:
    (here / "empty").mkdir()
    answer = say("show", name)
    assert (answer.status, answer.out) == (2, "")
    assert "folder:PATH expects a folder of class folders, got" in answer.err


def test_show_tells_a_table_s_columns_and_configurations(say: Any, here: Path) -> None:
    for split in ("train", "test"):
        write_parquet(here / "set" / f"{split}.parquet", [encoded(flat(9))] * 20, [0, 1] * 10, ["a", "b"], image="img", label="kind")
    words = ("show", "hf:me/set", "--data-dir", "set")
    told = say(*words, "--json").json
    assert told["columns"] == {"image": "img", "label": "kind"}
    assert told["splits"] == {"train": 18, "calibration": 2, "test": 20}
    assert "2: a, b" in say(*words).out
    assert "2: grey, 0" not in say(*words, "--set", "data.channels=1").out
    assert say(*words, "--set", "data.label=img").status == 2
    wrong = say(*words, "--set", "size=3")
    assert (wrong.status, "write data.KEY=value" in wrong.err) == (2, True)
    assert say("show", "mgnet", "--set", "data.size=8").status == 2


def test_a_split_that_cannot_be_opened_is_told_beside_those_that_can(say: Any, here: Path) -> None:
    dark_and_light(here / "set" / "val")
    told = say("show", "folder:set", "--json").json
    assert told["splits"]["test"] == 20
    assert "name one by --set data.train=NAME" in told["splits"]["train"]


def test_train_and_trace_say_what_they_read(say: Any, here: Path) -> None:
    dark_and_light(here / "set", count=20)
    (here / "r.toml").write_text('batch_size = 8\n[[phase]]\nname = "main"\nepochs = 1\noptimiser = "adamw"\nlr = 0.001\n')
    trained = say("train", "cnn4", "--data", "folder:set", "--set", "data.size=16", "--recipe", "r.toml", "-o", "card")
    assert "folder:set: 2 classes (dark, light)" in trained.err
    traced = say("trace", "card", "--data", "folder:set", "--set", "data.size=16", "-o", "t.png")
    assert "folder:set: 2 classes (dark, light)" in traced.err


def test_an_image_file_of_more_than_eight_bits_is_traced_as_it_is(say: Any, here: Path) -> None:
    import numpy as np

    make_card(here / "zoo_cards" / "cnn4.digits")
    deep = np.zeros((64, 64), "uint16")
    deep[16:48, 16:48] = 40000
    save(Image.fromarray(deep), here / "deep.png")
    save(Image.fromarray((deep / 257).round().astype("uint8")), here / "plain.png")
    found = say("trace", "cnn4.digits", "--image", "deep.png", "plain.png", "--json", "-o", "t.svg").json
    assert found[0]["looks"][0]["confidence"] == pytest.approx(found[1]["looks"][0]["confidence"], abs=1e-6)


def test_check_reads_its_data_from_a_folder(say: Any, here: Path) -> None:
    dark_and_light(here / "below" / "set", count=20)
    words = ("check", "cnn4", "--set", "data.size=16", "--json")
    answer = say(*words, "--data", "folder:set", "--data-dir", "below")
    assert (answer.status, answer.json["passed"]) == (0, True)
    assert "name one by --data" in say("check", "cnn4", "--data-dir", "below").err
