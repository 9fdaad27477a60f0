"""Text that vLLM's server would read as one of the model's control tokens; it has no way to send it as plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from katsuo.errors import ModelError
from katsuo.records import Prompt


class ControlTokens:
    """The control tokens of one tokenizer, by its files."""

    def __init__(self, folder: Path) -> None:
        self._pattern = re.compile("|".join(map(re.escape, _special(folder))) or r"(?!)")

    def objection(self, prompt: Prompt) -> str:
        """Say which control token stands in what a prompt is about; nothing where there is none."""
        about = prompt.passage.text or prompt.text + "\n".join(message.content for message in prompt.messages)
        found = self._pattern.search(about)
        return f'the text holds "{found[0]}", a control token of the model, and vLLM would obey it' if found else ""


def _special(folder: Path) -> list[str]:
    tokens = {token["content"] for token in _added(folder) if token.get("special")}
    return sorted(tokens, key=len, reverse=True)


def _added(folder: Path) -> Iterable[dict[str, Any]]:
    """Give the tokens that a tokenizer has beyond its vocabulary."""
    for name, key in (("tokenizer.json", "added_tokens"), ("tokenizer_config.json", "added_tokens_decoder")):
        path = folder / name
        if not path.is_file():
            continue
        try:
            added = json.loads(path.read_text(encoding="utf-8")).get(key) or []
        except (OSError, ValueError) as error:
            raise ModelError(f'cannot read "{path}": {error}', hint="pull the model again") from error
        return list(added.values()) if isinstance(added, dict) else list(added)
    return []
