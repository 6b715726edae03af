"""Classifies images with the graphs beside this file, step after step, until all images are done: numpy and onnxruntime are enough.

from run import classify
logits, last_step = classify(images)    # images: float32 [B, C, H, W] in [0, 1]; glimpsezoo.json has the size and the classes
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime >= 1.32 would tell its makers that it ran
import onnxruntime as ort  # pyright: ignore[reportMissingImports]


@cache
def session(step):
    """The graph of a step, or None after the last one."""
    file = Path(__file__).with_name(f"step-{step}.onnx")
    return ort.InferenceSession(file, providers=["CPUExecutionProvider"]) if file.exists() else None


def classify(images, ids=None):
    """The logits [B, classes] and the last step [B] of images. ids: int64 [B], for a model that draws from the noise of its images."""
    here, last_step, logits, step = np.arange(len(images)), np.zeros(len(images), np.int64), None, 1
    feed = {"images": images, "ids": here if ids is None else ids}
    while len(here) and (graph := session(step)):
        names = [output.name for output in graph.get_outputs()]
        found: dict[str, Any] = dict(
            zip(names, graph.run(names, {given.name: feed[given.name] for given in graph.get_inputs()}), strict=True)
        )
        here = here[found["rows"]]  # the images that took the step
        if logits is None:
            logits = np.zeros((len(images), found["logits"].shape[1]), np.float32)
        logits[here], last_step[here] = found["logits"], step
        staying = np.flatnonzero(~found["exits"])
        here, step = here[staying], step + 1
        feed = {name.removeprefix("next_"): value for name, value in found.items()} | {"images": images[here], "places": staying}
    return logits, last_step
