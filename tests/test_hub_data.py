"""Data sets on the Hub, with the real clients and a server on the loopback address: downloaded, streamed by ranges, gated, offline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import encoded, mnist, opened, picture, save, write_parquet
from hub_client import Client
from hub_server import TOKEN, HubServer

from glimpsezoo.data import batches
from glimpsezoo.data.images import NaturalImages
from glimpsezoo.errors import GlimpseZooError


def all_facts(*names: str) -> list[dict[str, Any] | str]:
    """In a client: `facts` of the test splits of several sets."""
    return [facts(name, "test", {"size": 16}) for name in names]


def facts(name: str, split: str, settings: dict[str, Any], data_dir: str | None = None) -> dict[str, Any] | str:
    """In a client or here: the facts about a split, or the one-line error."""
    try:
        data = opened(name, split, Path(data_dir) if data_dir else None, **settings)
        read = list(batches(data, 0, len(data), 16))
    except GlimpseZooError as error:
        return str(error)
    sums = [image.double().sum().item() for batch in read for image in batch.images]
    labels = [label for batch in read for label in batch.labels.tolist()]
    return {"labels": labels, "sums": sums, "fingerprint": data.info.fingerprint, "revision": data.info.revision}


def test_a_set_is_downloaded_once_and_is_the_copy_on_disk(hub: HubServer, client: Client, tmp_path: Path) -> None:
    folder = mnist(tmp_path / "copy", test=20)
    repository = hub.repository("ylecun/mnist", folder, kind="datasets")
    here = facts("mnist", "test", {}, str(folder))
    there = client.call(facts, "mnist", "test", {})
    assert isinstance(here, dict)
    assert there == here | {"revision": repository.head}
    hub.asked.clear()
    assert client.call(facts, "mnist", "test", {}, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1") == there
    assert hub.asked == []


def sizes(name: str, start: int, stop: int) -> list[int]:
    """In a client: the bytes of some images of a streamed test split."""
    data = opened(name, "test", streaming=True)
    assert isinstance(data, NaturalImages)
    return [len(row.image) for row in data.source.images.at(range(start, stop))]


def test_a_stream_asks_for_ranges_and_not_for_files(hub: HubServer, client: Client, tmp_path: Path) -> None:
    content = [np.random.default_rng(k).bytes(20_000) for k in range(800)]
    for split in ("train", "test"):
        write_parquet(tmp_path / "copy" / f"{split}-0.parquet", content, [k % 4 for k in range(800)], "abcd", group=5)
    hub.repository("me/set", tmp_path / "copy", kind="datasets")
    assert client.call(sizes, "hf:me/set", 50, 55) == [20_000] * 5
    assert all(asked.range for asked in hub.gets(".parquet"))
    spans = [tuple(map(int, asked.range.removeprefix("bytes=").split("-"))) for asked in hub.gets("/test-0.parquet")]
    assert 100_000 < sum(end + 1 - start for start, end in spans) < 6_000_000  # of 16 MB: five rows, and what the client reads ahead


@pytest.mark.parametrize(("token", "readable"), [("", False), (TOKEN, False), (TOKEN, True)])
def test_a_gated_set_opens_to_those_who_may_read_it(hub: HubServer, client: Client, tmp_path: Path, token: str, readable: bool) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "copy" / f"{split}-0.parquet", [encoded(picture(k)) for k in range(4)], [0, 1] * 2, "ab")
    hub.repository("me/set", tmp_path / "copy", kind="datasets", gated=True, readers={TOKEN} if readable else set())
    found = client.call(facts, "hf:me/set", "test", {"size": 16}, HF_TOKEN=token)
    if readable:
        assert found["labels"] == [0, 1, 0, 1]
    else:
        assert "me/set is gated, and this account has no access: accept its terms" in found
        assert "\n" not in found


def test_a_revision_of_a_set_is_pinned(hub: HubServer, client: Client, tmp_path: Path) -> None:
    for labels in ([0, 1], [1, 0]):
        for split in ("train", "test"):
            write_parquet(tmp_path / "copy" / f"{split}-0.parquet", [encoded(picture(k)) for k in range(2)], labels, "ab")
        files = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
        known = hub.repositories.get(("datasets", "me/set"))
        repository = known or hub.repository("me/set", {}, kind="datasets")
        repository.tags[f"v{labels[0]}"] = repository.commit(files)
    found = client.call(all_facts, "hf:me/set", "hf:me/set@v0", "hf:me/set@v1")
    assert [value["labels"] for value in found] == [[1, 0], [0, 1], [1, 0]]
    assert [value["revision"] for value in found] == [repository.tags["v1"], repository.tags["v0"], repository.tags["v1"]]


def test_a_folder_of_the_same_name_is_not_the_hub(hub: HubServer, client: Client, tmp_path: Path) -> None:
    for folder, labels in ((tmp_path / "copy", [0, 1]), (client.folder / "me" / "set", [1, 0])):
        for split in ("train", "test"):
            write_parquet(folder / f"{split}-0.parquet", [encoded(picture(k)) for k in range(2)], labels, "ab")
    repository = hub.repository("me/set", tmp_path / "copy", kind="datasets")
    found = client.call(facts, f"hf:me/set@{repository.head}", "test", {"size": 16})
    assert (found["labels"], found["revision"]) == ([0, 1], repository.head)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    assert client.call(facts, f"hf:me/set@{repository.head}", "test", {"size": 16}, **offline) == found
    other = client.call(facts, "hf:me/set@0123456789abcdef0123456789abcdef01234567", "test", {"size": 16}, **offline)
    assert other.startswith("cannot reach the Hub for me/set")


def test_a_part_of_a_download_does_not_pass_for_the_whole(hub: HubServer, client: Client, tmp_path: Path) -> None:
    """Without its test split, a fifth of the training images would be measured."""
    for split in ("train", "test"):
        write_parquet(tmp_path / "copy" / f"{split}-0.parquet", [encoded(picture(k)) for k in range(20)], [0, 1] * 10, "ab")
    hub.repository("me/set", tmp_path / "copy", kind="datasets")
    there = client.call(facts, "hf:me/set", "train", {"size": 16})
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    assert client.call(facts, "hf:me/set", "train", {"size": 16}, **offline) == there
    missing = client.call(facts, "hf:me/set", "test", {"size": 16}, **offline)
    assert missing == "expected all files of the split 'test', got none called test-0.parquet: complete the copy of the data set"


def test_other_files_than_parquet_have_one_fingerprint_with_and_without_a_network(hub: HubServer, client: Client, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for k in range(4):
            save(picture(k), tmp_path / "copy" / split / "ab"[k % 2] / f"{k}.png")
    hub.repository("me/set", tmp_path / "copy", kind="datasets")
    there = client.call(facts, "hf:me/set", "test", {"size": 16})
    assert there["labels"] == [0, 0, 1, 1]
    assert client.call(facts, "hf:me/set", "test", {"size": 16}, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1") == there


def test_a_configuration_of_the_hub_is_chosen_by_name(hub: HubServer, client: Client, tmp_path: Path) -> None:
    readme = "---\nconfigs:\n"
    for config, labels in (("one", [0, 1]), ("two", [1, 0])):
        readme += f"- config_name: {config}\n  data_files:\n"
        for split in ("train", "test"):
            write_parquet(tmp_path / "copy" / config / f"{split}-0.parquet", [encoded(picture(k)) for k in range(2)], labels, "ab")
            readme += f"  - split: {split}\n    path: {config}/{split}-*\n"
    (tmp_path / "copy" / "README.md").write_text(readme + "---\n")
    hub.repository("me/set", tmp_path / "copy", kind="datasets")
    assert client.call(facts, "hf:me/set", "test", {"size": 16, "subset": "two"})["labels"] == [1, 0]
    assert facts("hf:me/set", "test", {"size": 16, "subset": "two"}, str(tmp_path / "copy"))["labels"] == [1, 0]  # pyright: ignore[reportArgumentType, reportCallIssue]
    none = "expected one of the configurations of me/set, got none named: choose by --set data.subset=NAME, of one, two"
    assert client.call(facts, "hf:me/set", "test", {"size": 16}) == facts("hf:me/set", "test", {"size": 16}, str(tmp_path / "copy")) == none
