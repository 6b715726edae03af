"""Content decides identity: digests are cached by the metadata of a file, and are recomputed if any of them changes."""

import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest
from data_files import dark_and_light, encoded, flat, opened, right, write_parquet

from glimpsezoo.data import digests
from glimpsezoo.data.digests import CACHE, UNREADABLE, hashed_again, local_digests
from glimpsezoo.errors import GlimpseZooError

LONG_AGO = 1_000_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder; files count as settled as soon as they are written."""
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    return tmp_path / "home"


def write(path: Path, content: bytes) -> str:
    """Write a file that seems old; returns its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return hashlib.sha256(content).hexdigest()


def read(files: list[Path]) -> tuple[list[str], int]:
    """The digests of files, and the number of files that were read."""
    with patch.object(hashlib, "file_digest", wraps=hashlib.file_digest) as counted:
        return local_digests([str(file) for file in files]), counted.call_count


def test_each_file_is_read_once(home: Path, tmp_path: Path) -> None:
    files = [tmp_path / folder / f"{k}" for folder in "ab" for k in range(3)]
    expected = [write(file, file.name.encode()) for file in files]
    assert read(files) == (expected, 6)
    assert read(files) == (expected, 0)
    write(files[4], b"another")
    assert read(files)[1] == 1
    assert len(list((home / CACHE).iterdir())) == 2  # one for each folder


def test_a_swap_that_keeps_names_sizes_and_times_is_seen(home: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "set" / "a", tmp_path / "set" / "b"
    first = [write(a, b"1"), write(b, b"2")]
    assert read([a, b])[0] == first
    a.rename(tmp_path / "t")
    b.rename(a)
    (tmp_path / "t").rename(b)
    assert read([a, b])[0] == first[::-1]


def test_a_change_in_place_that_keeps_size_and_time_is_seen(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "a"
    write(file, b"1")
    read([file])
    time.sleep(0.02)  # longer than a tick of a file system's clock
    assert read([file])[1] == 0
    changed = [write(file, b"2")]
    assert read([file])[0] == changed


def test_a_file_that_was_changed_just_now_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(tmp_path / "home"))
    write(tmp_path / "a", b"1")
    assert [read([tmp_path / "a"])[1] for _ in range(2)] == [1, 1]


def test_nothing_is_trusted_where_files_are_to_be_hashed_again(home: Path, tmp_path: Path) -> None:
    expected = [write(tmp_path / "a", b"1")]
    read([tmp_path / "a"])
    (kept,) = (home / CACHE).iterdir()
    kept.write_text(kept.read_text().replace(expected[0], "0" * 64))
    assert read([tmp_path / "a"])[0] == ["0" * 64]
    with hashed_again():
        assert read([tmp_path / "a"])[0] == expected
    assert read([tmp_path / "a"]) == (expected, 0)


def test_a_damaged_cache_is_made_anew_and_one_that_cannot_be_written_is_done_without(home: Path, tmp_path: Path) -> None:
    expected = [write(tmp_path / "a", b"1")]
    read([tmp_path / "a"])
    (kept,) = (home / CACHE).iterdir()
    for damage in ("{", "[]", "{}", '{"version": 1, "files": {}}'):
        kept.write_text(damage)
        assert read([tmp_path / "a"]) == (expected, 1)
    kept.unlink()
    kept.mkdir()
    assert read([tmp_path / "a"]) == (expected, 1)


def test_what_cannot_be_read_has_no_digest_and_is_not_kept(home: Path, tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert read([tmp_path / "gone"])[0] == [UNREADABLE]
    expected = [write(tmp_path / "nowhere", b"1")]
    assert read([tmp_path / "gone"])[0] == expected


def hash_all(files: list[str]) -> list[str]:
    return local_digests(files)


def test_processes_that_hash_the_same_files_do_not_disturb_each_other(home: Path, tmp_path: Path) -> None:
    files = [tmp_path / "set" / f"{k}" for k in range(50)]
    expected = [write(file, file.name.encode()) for file in files]
    with ProcessPoolExecutor(3) as pool:
        found = list(pool.map(hash_all, [[str(file) for file in files]] * 6))
    assert found == [expected] * 6
    assert read(files)[0] == expected


def test_labels_that_are_turned_round_by_moving_folders_are_other_data(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "test"):
        dark_and_light(root / split)
    for file in root.rglob("*.png"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    before = opened(f"folder:{root}", "test", size=16)
    (root / "test" / "dark").rename(root / "t")
    (root / "test" / "light").rename(root / "test" / "dark")
    (root / "t").rename(root / "test" / "light")
    after = opened(f"folder:{root}", "test", size=16)
    assert right(after) == 0
    with pytest.raises(GlimpseZooError, match=r"'0.png', which changed since"):
        right(before)  # its labels are those of the files that were there
    assert after.info.fingerprint != before.info.fingerprint


def test_the_table_that_is_trained_on_is_that_of_the_files_as_they_are(tmp_path: Path) -> None:
    for name, values in (("one", (50, 200)), ("other", (200, 50))):
        place = tmp_path / name / "train.parquet"
        write_parquet(place, [encoded(flat(value)) for value in values] * 10, [0, 1] * 10, ["dark", "light"])
        os.utime(place, (LONG_AGO, LONG_AGO))
    assert right(opened("hf:me/one", "train", tmp_path / "one", size=16)) == 1
    (tmp_path / "one").rename(tmp_path / "t")
    (tmp_path / "other").rename(tmp_path / "one")
    assert right(opened("hf:me/one", "train", tmp_path / "one", size=16)) == 0
