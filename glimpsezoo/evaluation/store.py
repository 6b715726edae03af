"""Finished units of work: one Parquet file per unit, one row per image. Files are written atomically and no unit is computed twice.

A unit's id hashes everything that decides its outcome. Resuming, and working with several processes or machines, are therefore the same
rule: take a unit that is not finished. A finished unit is a file named by the id. The process that measures a unit holds a lock on it;
the OS releases the lock if the process dies.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.rows import StoredUnit, read_rows, write_rows
from glimpsezoo.files import write_whole


class UnitStore:
    """A folder of finished units, created when the first one is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, unit_id: str) -> Path:
        return self.folder / f"{unit_id}.parquet"

    def has(self, unit_id: str) -> bool:
        """Whether the unit has a file; `read` tells whether it can be used."""
        return self.path(unit_id).is_file()

    def read(self, unit_id: str) -> StoredUnit | None:
        """The finished unit; None if it has no file, or a damaged one."""
        return read_rows(self.path(unit_id))

    def write(self, unit_id: str, unit: StoredUnit) -> None:
        """Write a finished unit atomically. Raises `GlimpseZooError` if the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_rows(self.path(unit_id), unit)
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def read_finding(self, name: str) -> str | None:
        """The text of a finding that is not one row per image; None if there is none under this name, or if it is not text."""
        try:
            return (self.folder / f"{name}.json").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    def write_finding(self, name: str, text: str) -> None:
        """Write such a finding atomically. Raises `GlimpseZooError` if the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / f"{name}.json", text.encode())
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    @contextmanager
    def claim(self, unit_id: str) -> Iterator[bool]:
        """Whether this process may measure the unit now; false while another process is measuring it."""
        path = self.folder / "locks" / unit_id
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise _unwritable(self.folder, error) from None
        try:
            yield True
        finally:
            lock.release()


def _unwritable(folder: Path, error: OSError) -> GlimpseZooError:
    return GlimpseZooError(f"expected a folder for finished units that can be written, got {str(folder)!r}: {one_line(error)}")
