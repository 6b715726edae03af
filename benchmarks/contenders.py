"""What contenders of several benchmarks share."""

import os
from typing import Any

from glimpsezoo.core.protocol import Computing, GlimpseModel

SHORT = "GLIMPSEZOO_SHORT" in os.environ  # one round, to check that it runs


def compiled(model: GlimpseModel[Any]) -> GlimpseModel[Any]:
    """The model, which compiles its phases, as with `--compile`."""
    model.computing = Computing(compiled=True)
    return model
