"""Turn passages into prompts: every task type, every draw, each with a seed of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from katsuo.records import Passage, Prompt
from katsuo.tasks import TaskType
from katsuo.tasks.codec import Codec
from katsuo.tasks.grammar import TaskConstraint


def ask(passages: Iterable[Passage], *, tasks: Sequence[TaskType], codec: Codec, n: int, seed: int) -> Iterator[Prompt]:
    """
    Give `len(tasks) * n` prompts per passage, in passage order.

    A prompt's id and seed come from the run's seed, the passage's id, the task type and the draw, never from its
    position, so that neither batch size nor resume nor worker changes them.
    """
    for passage in passages:
        for task in tasks:
            text, messages = codec.render(task, passage.text)
            constraint = TaskConstraint(task.answer, passage.text, task.frame if codec.is_framed else None)
            for draw in range(n):
                digest = blake2b(f"{seed}\0{passage.id}\0{task.name}\0{draw}".encode(), digest_size=16).digest()
                yield Prompt(
                    id=digest[:8].hex(),
                    passage=passage,
                    task_type=task.name,
                    draw=draw,
                    seed=int.from_bytes(digest[8:], "big") >> 1,
                    text=text,
                    messages=messages,
                    constraint=constraint,
                )


def prompt_hash(prompt: Prompt) -> str:
    """Give the hash of all that the model was shown."""
    digest = blake2b(prompt.text.encode(), digest_size=8)
    for message in prompt.messages:
        digest.update(f"{message.role}\0{message.content}\0".encode())
    return digest.hexdigest()
