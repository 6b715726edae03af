"""The identity of a split: a hash of its source and of everything that changes its pixels."""

import hashlib
import json
from typing import Any

from glimpsezoo.settings import Settings


def fingerprint(content: str, split: str, transform: str, config: Settings, *, ignore: frozenset[str] = frozenset()) -> str:
    """Hash (32 hex digits) of the source's content, the split, the transform and the settings, less those in `ignore`."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude=set(ignore))
    text = json.dumps([content, split, transform, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
