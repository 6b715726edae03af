"""docs/production.md is true: its Python runs, and the service that it lists answers over HTTP."""

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

import glimpsezoo as gz

PAGE = (Path(__file__).parent.parent / "docs" / "production.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SERVICE = next(block for block in BLOCKS if "do_POST" in block)


def test_the_python_of_the_page_runs():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec("\n".join(block for block in BLOCKS if block is not SERVICE), {})
    first, names, look, share = said.getvalue().splitlines()
    assert re.fullmatch(r"\d [\d.]+% 3 of 3 looks 2,483,648 MACs", first)
    assert names.count("'") == 10
    assert look.startswith("(Window(left=")
    assert float(share) < 0.9


def test_the_service_is_as_short_as_the_page_says():
    assert len(SERVICE.splitlines()) <= 45


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the service that the page lists."""
    script = tmp_path_factory.mktemp("service") / "service.py"
    script.write_text(SERVICE, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, script], env=os.environ | {"PORT": str(port)}, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=10).close()
                break
            assert process.poll() is None
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


def files(count: int) -> list[bytes]:
    found = []
    for index in range(count):
        file = io.BytesIO()
        Image.fromarray((255 * gz.open_data("digits")[5 * index].image[0].numpy()).astype("uint8")).save(file, "PNG")
        found.append(file.getvalue())
    return found


def ask(address: str, content: bytes) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(address, data=content, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_requests_at_the_same_time_get_what_predict_says(service: str):
    content, rule = files(12), gz.Confidence(0.9)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda each: ask(service, each), content))
    expected = gz.load("mgnet.digits").predict(content, top=3, exit_rule=rule)
    assert [status for status, _ in answers] == [200] * 12
    for (_, found), own in zip(answers, expected, strict=True):
        assert (found["label"], found["exit_step"], found["macs"]) == (own.label, own.exit_step, own.macs)
        assert found["probability"] == pytest.approx(own.probability, abs=1e-4)


def test_what_is_no_image_is_refused_in_one_line(service: str):
    status, said = ask(service, b"no image")
    assert (status, "error" in said) == (400, True)
    assert "\n" not in str(said["error"])
    assert ask(service, b"")[0] == 413


def test_it_says_what_it_serves(service: str):
    with urllib.request.urlopen(service, timeout=60) as answer:
        about = json.load(answer)
    assert about["model"] == "mgnet.digits"
    assert len(about["sha256"]) == 64
