"""What a package from outside adds to katsuo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from katsuo.config import Sampling
from katsuo.engines import EngineSettings, ModelInfo
from katsuo.export.order import TEXT, Order, Row
from katsuo.records import Completion, Document, Example, Prompt, Reject
from katsuo.sources import SourceSettings, SourceShard
from katsuo.tasks import TaskType, Worked
from katsuo.tasks.checks import refers_to_passage
from katsuo.tasks.shapes import Labels

LANGUAGE = TaskType(
    name="language identification",
    short="language",
    description="Ask for the language of the passage.",
    answer=Labels((("swedish", "danish"),)),
    checks=(refers_to_passage,),
    examples=(Worked("Det är kallt i dag.", "{{context}}\nSwedish or Danish?", "swedish"),),
)


class Echo:
    """An engine that always asks the same and answers with the label that the model's name gives."""

    def __init__(self, settings: EngineSettings) -> None:
        self.info = ModelInfo("echo", settings.model, "1", codec="bonito-v1", context_tokens=4096)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        text = f"{{{{context}}}}\nSwedish or Danish?\n<|pipe|>\n{self.info.model}"
        return [Completion(text, "stop", 9) for _ in prompts]


class Memory:
    """A source whose address is its text: `memory://a text`."""

    def __init__(self, settings: SourceSettings) -> None:
        self._address = settings.address

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def list_shards(self) -> Iterator[SourceShard]:
        yield SourceShard(self._address, self._address, "memory")

    def read(self, shard: SourceShard) -> Iterator[Document | Reject]:
        yield Document(shard.source, shard.path.removeprefix("memory://"))

    def digest(self, shard: SourceShard) -> bytes:
        return shard.path.encode()


def write_pairs(order: Order) -> None:
    """Write the response alone."""
    order.write_rows(_row, {"answer": TEXT})


def _row(example: Example) -> Row:
    return {"answer": example.response}
