"""What the Hub reported about a data set at a commit: the files of each split and their columns, kept in the user's folder.

Offline, the Hub's cache holds only what was downloaded, perhaps one split of several. Its files alone would make that look complete.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from glimpsezoo.files import user_folder, write_whole

FOLDER = "hub-listings"  # within the user's folder

Files = Mapping[str, tuple[str, ...]]  # split -> files


class Listed(NamedTuple):
    """A data set at a commit."""

    repository: str
    """OWNER/NAME on the Hub."""
    commit: str
    subset: str | None
    """The configuration that the user asked for."""

    def remember(self, files: Files) -> None:
        """Keep the files of each split, given as addresses `hf://datasets/OWNER/NAME@COMMIT/PATH`."""
        self._keep(
            "files",
            json.dumps({split: [file.partition(f"@{self.commit}/")[2] for file in names] for split, names in files.items()}).encode(),
        )

    def files(self, snapshot: Path) -> Files | None:
        """The files that the Hub listed, as paths in a snapshot, where some may be missing; None if they were not kept."""
        try:
            listed = json.loads(self._place("files").read_bytes())
            return {split: tuple(str(snapshot / name) for name in names) for split, names in listed.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return None

    def remember_schema(self, split: str, schema: Any) -> None:
        """Keep the columns of a split (an Arrow schema)."""
        self._keep(f"schema {split}", schema.serialize().to_pybytes())

    def schema(self, split: str) -> Any:
        """The columns of a split; None if they were not kept."""
        import pyarrow as pa

        try:
            return pa.ipc.read_schema(pa.py_buffer(self._place(f"schema {split}").read_bytes()))
        except (OSError, pa.ArrowException):
            return None

    def _place(self, what: str) -> Path:
        return user_folder() / FOLDER / hashlib.sha256(json.dumps([*self, what]).encode()).hexdigest()[:32]

    def _keep(self, what: str, content: bytes) -> None:
        """Write a file. If that is not possible, nothing is kept."""
        place = self._place(what)
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, content)
