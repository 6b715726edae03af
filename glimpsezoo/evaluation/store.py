"""Finished units of work: one Parquet file per unit, one row per image. Files are written atomically and no unit is computed twice.

A unit's id hashes everything that decides its outcome. Resuming, and working with several processes or machines, are therefore the same
rule: take a unit that is not finished. A finished unit is a file named by the id, with a hash of its content. The process that measures a
unit holds a claim on it (`glimpsezoo.evaluation.claims`), which ends with the process.
"""

import hashlib
import json
import re
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.claims import Claims
from glimpsezoo.evaluation.places import Folder, place_of
from glimpsezoo.evaluation.rows import StoredUnit, from_parquet, to_parquet
from glimpsezoo.untrusted import json_values


class UnitStore:
    """Finished units in a folder, created when the first one is written, or at a URL. Raises `GlimpseZooError` for a bad URL."""

    def __init__(self, where: Path | str) -> None:
        self.place = place_of(where)
        self.notes: list[str] = []
        """What was found damaged, a line each."""
        self._claims = Claims(self.place)

    @property
    def folder(self) -> Path | None:
        """The folder; None for a URL."""
        return self.place.path if isinstance(self.place, Folder) else None

    @property
    def shown(self) -> str:
        """What users are told: the folder, or the URL without credentials."""
        return self.place.shown

    def check(self, *, write: bool) -> None:
        """Raise `GlimpseZooError` if the store does not answer or, with `write`, cannot be written."""
        self.place.check(write=write)

    def has(self, unit_id: str) -> bool:
        """Whether the unit has a file; `read` tells whether it can be used."""
        return self.place.has(_unit(unit_id))

    def read(self, unit_id: str) -> StoredUnit | None:
        """The finished unit; None if it has no file, or a damaged one (which is noted)."""
        content = self.place.read(_unit(unit_id))
        found = None if content is None else from_parquet(content, unit_id)
        if content is not None and found is None:
            self._note(_unit(unit_id))
        return found

    def write(self, unit_id: str, unit: StoredUnit) -> None:
        """Write a finished unit atomically. Raises `GlimpseZooError` if the store cannot be written."""
        self.place.write(_unit(unit_id), to_parquet(unit, unit_id))

    def read_finding(self, name: str) -> str | None:
        """The text of a finding that is not one row per image; None if there is none under this name, or a damaged one (which is noted)."""
        content = self.place.read(_finding(name))
        if content is None:
            return None
        try:
            found = json_values(content)
            if found["sha256"] == _hash(name, found["text"]):
                return found["text"]
        except (ValueError, KeyError, TypeError):
            pass
        self._note(_finding(name))
        return None

    def write_finding(self, name: str, text: str) -> None:
        """Write such a finding atomically. Raises `GlimpseZooError` if the store cannot be written."""
        self.place.write(_finding(name), json.dumps({"sha256": _hash(name, text), "text": text}).encode())

    def claim(self, unit_id: str) -> AbstractContextManager[bool]:
        """Whether this process may measure the unit now; false while another process is measuring it. A claim may be held for long."""
        return self._claims.claim(unit_id)

    def sweep(self) -> None:
        """Delete what processes that have ended left behind, as far as that is certain: claims, and the locks of earlier versions."""
        with suppress(GlimpseZooError):
            self._claims.sweep()
        if self.folder is not None and (self.folder / "locks").is_dir():
            _sweep_locks(self.folder / "locks")

    def _note(self, name: str) -> None:
        note = f"{name} in {self.shown} is damaged or not what its name says: measured again"
        if note not in self.notes:
            self.notes.append(note)


def _sweep_locks(folder: Path) -> None:
    """Delete the files of locks that nobody holds."""
    for path in list(folder.iterdir()):
        if re.fullmatch("[0-9a-f]{32}", path.name):
            with suppress(OSError, Timeout), FileLock(path, timeout=0):
                path.unlink()
    with suppress(OSError):  # something else is in it
        folder.rmdir()


def _unit(unit_id: str) -> str:
    return f"{unit_id}.parquet"


def _finding(name: str) -> str:
    return f"{name}.json"


def _hash(name: str, text: str) -> str:
    return hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()
