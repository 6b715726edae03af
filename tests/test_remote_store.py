"""Units at a URL: in memory and on a real S3 server of this machine. Nothing is half-written, exchanged or told."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from command_line import ask, lonely, make_card
from test_store import MEASURED, assert_same, some_rows

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.places import place_of
from glimpsezoo.evaluation.rows import StoredUnit
from glimpsezoo.evaluation.store import UnitStore

pytest.importorskip("s3fs")
UNIT = "0123456789abcdef" * 2
SECRET = "wJalrXUtnFEMI"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("bucket")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "s3", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path, s3: str) -> str:
    name = f"units{time.monotonic_ns()}"
    return {"memory": f"memory://bucket/{name}", "s3": f"s3://bucket/{name}", "folder": f"file://{tmp_path}/{name}"}[request.param]


def test_units_and_findings_come_back_as_they_were_written(url: str) -> None:
    store, rows = UnitStore(url), some_rows()
    store.check(write=True)
    assert store.read(UNIT) is store.read_finding("verdict") is None
    assert not store.has(UNIT)
    store.write(UNIT, StoredUnit(rows, MEASURED))
    store.write_finding("verdict", "größer")
    again = UnitStore(url)  # another machine
    found = again.read(UNIT)
    assert again.has(UNIT)
    assert found is not None
    assert_same(found.rows, rows)
    assert again.read_finding("verdict") == "größer"
    assert again.notes == []


def test_what_is_damaged_cut_or_exchanged_counts_as_absent_and_is_noted(url: str) -> None:
    store, place = UnitStore(url), place_of(url)
    store.write(UNIT, StoredUnit(some_rows(), MEASURED))
    store.write_finding("verdict", "bigger")
    unit, finding = place.read(f"{UNIT}.parquet"), place.read("verdict.json")
    assert unit is not None
    assert finding is not None
    other = "f" * 32
    flipped = unit[:300] + bytes([unit[300] ^ 4]) + unit[301:]
    for name, content in ((f"{UNIT}.parquet", unit[:-1]), (f"{UNIT}.parquet", flipped), (f"{other}.parquet", unit)):
        place.write(name, content)
        assert store.read(name.partition(".")[0]) is None
        assert any(name in note for note in store.notes)
    for name, content in (("verdict.json", finding.replace(b"bigger", b"better")), ("other.json", finding), ("verdict.json", b"[]")):
        place.write(name, content)
        assert store.read_finding(name.partition(".")[0]) is None
        assert any(name in note for note in store.notes)
    store.write(UNIT, StoredUnit(some_rows(), MEASURED))
    assert store.read(UNIT) is not None


def test_only_one_holds_a_claim(url: str) -> None:
    one, other = UnitStore(url), UnitStore(url)
    with one.claim(UNIT) as mine, other.claim(UNIT) as too, other.claim("f" * 32) as another:
        assert mine
        assert not too
        assert another
    with other.claim(UNIT) as now:
        assert now
    assert place_of(url).names("claims") == []


def test_a_claim_at_a_url_is_over_when_its_owner_is_gone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from glimpsezoo.evaluation import claims

    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    store, place = UnitStore(url), place_of(url)
    place.create(f"claims/{UNIT}.0", b'{"machine": "00000000", "process": 1}')
    with store.claim(UNIT) as mine:
        assert not mine
    now[0] += claims.EXPIRY + 1
    with store.claim(UNIT) as mine:
        assert mine
    assert place.names("claims") == []


def test_a_content_is_renewed_only_if_it_is_still_there(url: str) -> None:
    place = place_of(url)
    assert not place.renew("claims/x.0", b"1", b"2")
    assert place.create("claims/x.0", b"1")
    assert not place.create("claims/x.0", b"3")
    assert place.renew("claims/x.0", b"1", b"2")
    assert not place.renew("claims/x.0", b"1", b"3")
    assert place.read("claims/x.0") == b"2"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://bucket/units", "nosuch"),
        ("s3:/bucket/units", "s3://"),
        ("", "got nothing"),
        ("s3://no-such-bucket/units", "no-such-bucket"),
    ],
)
def test_what_is_no_store_is_one_clear_line(url: str, said: str, s3: str) -> None:
    with pytest.raises(GlimpseZooError, match=said) as error:
        UnitStore(url).check(write=True)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(GlimpseZooError, match="pip install s3fs"):
        UnitStore("s3://bucket/units")


@pytest.mark.parametrize("secret", [SECRET, "ab/cd@ef"])
def test_credentials_in_a_url_are_never_told(secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Not by the line that refuses them where they help nothing, not by an error of the server, not by the results."""
    with pytest.raises(GlimpseZooError, match="'s3://bucket/units'") as error:
        UnitStore(f"s3://AKIAEXAMPLE:{secret}@bucket/units")
    assert secret not in str(error.value)
    with pytest.raises(GlimpseZooError, match=r"'ftp://127\.0\.0\.1:9/units'") as error:
        UnitStore(f"ftp://user:{secret}@127.0.0.1:9/units").check(write=True)
    assert secret not in str(error.value)
    make_card(lonely(monkeypatch, tmp_path) / "cnn4.digits")
    found = ask(capsys, "run", "cnn4", "--limit", "5", "--measure", "accuracy", "--store", f"memory://user:{secret}@units", "-o", "out")
    assert found.status == 0
    assert "kept in memory://units" in found.err
    assert secret not in found.err + found.out
    assert not [path for path in tmp_path.rglob("out/**/*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_an_unreachable_server_is_one_line(tmp_path: Path) -> None:
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    words = ["run", "mgnet", "--limit", "2", "--measure", "accuracy", "--store", "s3://bucket/units"]
    found = subprocess.run(
        [sys.executable, "-m", "glimpsezoo", *words],
        check=False,
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert "got 's3://bucket/units'" in line
    assert SECRET not in found.stderr + found.stdout


def test_two_machines_share_what_is_measured(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    place = "s3://bucket/shared"
    answers = []
    for name in ("laptop", "ci"):
        (tmp_path / name).mkdir()
        make_card(lonely(monkeypatch, tmp_path / name) / "cnn4.digits")
        answers.append(ask(capsys, "run", "cnn4", "--limit", "5", "--measure", "accuracy", "--store", place, "-o", "out"))
    assert [answer.status for answer in answers] == [0, 0]
    assert "1 unit measured, 0 reused" in answers[0].err
    assert "0 units measured, 1 reused" in answers[1].err
    assert "kept in s3://bucket/shared" in answers[0].err
    assert not (tmp_path / "ci" / "runs").exists()
    monkeypatch.setenv("GLIMPSEZOO_STORE", place)
    assert "0 units measured, 1 reused" in ask(capsys, "run", "cnn4", "--limit", "5", "--measure", "accuracy", "-o", "out").err
