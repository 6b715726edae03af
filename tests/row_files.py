"""rows.parquet of a result or a card: read, and written anew."""

import hashlib
from pathlib import Path

from glimpsezoo.evaluation.rows import StoredUnit, from_parquet, to_parquet


def write_rows(path: Path, unit: StoredUnit) -> str:
    """The SHA-256 of the file that is written."""
    content = to_parquet(unit)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_rows(path: Path) -> StoredUnit | None:
    """None if the file is missing, or is not what was written."""
    return from_parquet(path.read_bytes()) if path.is_file() else None
