"""Writes the screenshots of docs/pictures.md, docs/screens/*.png, with Chromium.

python docs/generating/screens.py
"""

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from glimpsezoo.workflows.reporting import report

CARDS = ("mgnet.digits", "cnn4.digits", "pyramid-m3.digits", "ranzato.digits")
WIDTH, HEIGHT = 1280, 1240
COLOURS = 255  # of a file, which keeps it small
FOLDER = Path(__file__).parents[1] / "screens"


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "report.html"
        report(CARDS, path, traces=0, data_dir=None, force=False)
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for mode in ("light", "dark"):
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=mode)
            page.goto(path.as_uri())
            image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            image.quantize(COLOURS, dither=Image.Dither.NONE).save(FOLDER / f"report-{mode}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    write()
