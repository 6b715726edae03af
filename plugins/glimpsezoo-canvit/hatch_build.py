"""Adds the checkout's cards of the plugin's models to the wheel and the sdist, as PACKAGE/zoo_cards. Editable installs get none.

Every plugin of the checkout has a copy of this file, because an sdist must contain it. In an sdist, the cards are in the package already.
"""

import json
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class OwnCards(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        package = self.metadata.name.replace("-", "_")
        for config in Path(self.root, "../..").resolve().glob("zoo_cards/*/config.json"):
            if json.loads(config.read_text(encoding="utf-8"))["plugin"] == self.metadata.name:
                build_data["force_include"][str(config.parent)] = f"{package}/zoo_cards/{config.parent.name}"
