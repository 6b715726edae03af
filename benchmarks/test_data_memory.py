"""Evaluation does not keep images: peak memory of a process that measures 10,000 images, against one that measures 1,000.

    pytest benchmarks/test_data_memory.py -s

Each measurement runs in its own process, on generated images of 64 px (or 224 px). They are decoded in full and then resized to 32 px, so
that the model is fast. Peak memory is the maximum resident set size of the process, and of its largest worker if there are workers, in MiB.
"""

import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

MOST = 1.05
FEW, MANY = (100, 200) if "GLIMPSEZOO_SHORT" in os.environ else (1_000, 10_000)
PLAIN = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write(folder: Path, count: int, side: int, *, one_group: bool) -> Path:
    """A test and a train split of noisy JPEG images, as one row group (the hardest case) or in row groups of 100."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for split, images in (("test", count), ("train", 20)):
        schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
        with pq.ParquetWriter(folder / f"{split}-00000-of-00001.parquet", schema) as writer:
            rows = []
            for k in range(images):
                stream = io.BytesIO()
                Image.fromarray(draws.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(stream, "JPEG")
                rows.append({"image": {"bytes": stream.getvalue(), "path": None}, "label": k % 10})
                if k + 1 == images or (len(rows) == 100 and not one_group):
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows = []
    return folder


def peak(folder: Path, count: int, *, streaming: bool, workers: int) -> tuple[int, int]:
    """Peak memory in MiB of a measuring process, and of its largest worker."""
    arguments = [str(folder), str(count), str(streaming), str(workers)]
    found = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True, env=PLAIN)
    own, worker = map(int, found.stdout.split())
    return own // 1024, worker // 1024


@pytest.mark.parametrize(
    ("side", "streaming", "workers", "one_group"),
    [(64, False, 0, False), (64, False, 0, True), (64, True, 0, False), (64, False, 2, False), (224, False, 0, False)][: MANY // 200],
)
def test_peak_memory_does_not_grow(tmp_path: Path, side: int, streaming: bool, workers: int, one_group: bool) -> None:
    peaks = {}
    for count in (FEW, MANY):
        folder = write(tmp_path / str(count), count, side, one_group=one_group)
        peaks[count] = peak(folder, count, streaming=streaming, workers=workers)
    for name, few, many in zip(("process", "largest worker"), peaks[FEW], peaks[MANY], strict=True):
        if workers or name == "process":
            print(f"{side} px, streaming={streaming}, workers={workers}, one group={one_group}, {name}: {few} MiB, {many} MiB")
    assert peaks[MANY][0] <= MOST * peaks[FEW][0]
    assert peaks[MANY][1] <= MOST * peaks[FEW][1]


def measure(folder: str, count: str, streaming: str, workers: str) -> None:
    """Run in the subprocess: measure the whole test split, and print the peak memory of the process and of its largest worker, in KiB."""
    import glimpsezoo as gz
    from glimpsezoo.data import open_data
    from glimpsezoo.evaluation.jobs import Job
    from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
    from glimpsezoo.zoo.names import data_spec

    data = open_data(data_spec("hf:me/made"), "hf:me/made", "test", {"size": 32, "streaming": streaming}, Path(folder))
    model = gz.create_model("cnn4", task=data.task)
    found = run_job(Job(model, "cnn4", data), EvaluationConfig(batch_size=50, workers=int(workers)))
    assert len(found.rows) == int(count)
    print(*(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


if __name__ == "__main__":
    measure(*sys.argv[1:])
