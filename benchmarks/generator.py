"""
Measure what a task generator writes, against its base asked by worked examples, on passages no training pair holds.

    python benchmarks/generator.py write MODEL --data FOLDER -o OUT [--grammar] [--per-type 100]
    python benchmarks/generator.py table OUT... > table.md
    python benchmarks/generator.py page OUT > docs/generator.md
    python benchmarks/generator.py overlap OUT --pairs PAIRS

FOLDER holds `<name>/contexts.parquet` with the columns `text` and `doc_id`. `write` takes what a killed call left.
PAIRS is a folder of training pairs: `overlap` counts the passages of OUT that share 13 words in a row with any of them.
Does not measure whether an answer is true: agreement says that the model stands by it.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.pipeline.ask import ask
from katsuo.records import Completion, Message, Passage, Prompt
from katsuo.tasks import CATALOG, TaskType, checks, find_task
from katsuo.tasks.checks import normalise
from katsuo.tasks.codec import Pair, find_codec, join_pair, parse_pair, render_bonito
from katsuo.tasks.shapes import Span, as_in_passage
from katsuo.tasks.task_type import Draft
from katsuo.train.read import PairFolder

FORM = (
    *(checks.refers_to_passage, checks.answer_in_labels),
    *(checks.answer_an_option, checks.is_whole_passage),
)
"""What makes a pair well formed, as far as its type asks for it; whether it speaks of the passage is counted apart."""
LONGEST = 1600
_SHOWN = 20
_RUN = 13
POSITIVE = {"yes", "true", "correct", "always", "guaranteed", "entailment", "definitely"}
NEGATIVE = {"no", "false", "incorrect", "never", "impossible", "contradiction"}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    writer = parts.add_parser("write")
    writer.add_argument("model")
    writer.add_argument("--adapter")
    writer.add_argument("--data", type=Path, required=True)
    writer.add_argument("-o", "--output", type=Path, required=True)
    writer.add_argument("--grammar", action="store_true")
    writer.add_argument("--answer", choices=["sampled", "greedy"], default="sampled")
    writer.add_argument("--temperature", type=float, default=Sampling().temperature)
    writer.add_argument("--per-type", type=int, default=100)
    writer.add_argument("--types", nargs="+", default=[task.short for task in CATALOG])
    writer.add_argument("--seed", type=int, default=0)
    for name in ("table", "page"):
        parts.add_parser(name).add_argument("outputs", type=Path, nargs="+")
    counter = parts.add_parser("overlap")
    counter.add_argument("outputs", type=Path, nargs="+")
    counter.add_argument("--pairs", type=Path, required=True)
    options = parser.parse_args()
    if options.part == "write":
        write(options)
    elif options.part == "overlap":
        print_overlap(options.outputs, options.pairs)
    else:
        {"table": print_table, "page": print_page}[options.part]([read(path) for path in options.outputs])


@dataclass(frozen=True)
class Written:
    """One prompt's outcome: the completion, and the response on a second, greedy reading of its own instruction."""

    task: str
    source: str
    passage: str
    text: str
    finish: str
    second: str | None


def write(options: argparse.Namespace) -> None:
    """Ask the model, then ask it again for the response to each well-formed instruction; keep all as JSON lines."""
    settings = EngineSettings(options.model, options.adapter, EngineOptions())
    engine = open_engine("hf", settings)
    codec = find_codec(engine.info.codec)
    sampling = Sampling(
        temperature=options.temperature, max_new_tokens=256, grammar=options.grammar, answer=options.answer
    )
    done = {one.task for one in read(options.output)[1]} if options.output.exists() else set()
    with options.output.open("a", encoding="utf-8") as file:
        if not done:
            told = {
                "model": engine.info.model,
                "codec": codec.name,
                "grammar": options.grammar,
                "answer": options.answer,
                "temperature": options.temperature,
                "seed": options.seed,
            }
            file.write(json.dumps(told) + "\n")
        for short in options.types:
            task = find_task(short)
            if task.name in done:
                continue
            started = time.monotonic()
            passages = list(draw_passages(options.data, options.per_type, seed=options.seed))
            prompts = list(ask(passages, tasks=(task,), codec=codec, n=1, seed=options.seed))
            completions = engine.generate(prompts, sampling)
            seconds = read_again(engine, prompts, completions, task)
            for prompt, completion, second in zip(prompts, completions, seconds, strict=True):
                one = Written(
                    task.name, prompt.passage.source, prompt.passage.text, completion.text, completion.finish, second
                )
                file.write(json.dumps(one.__dict__, ensure_ascii=False) + "\n")
            file.flush()
            sys.stderr.write(f"{task.name}: {len(prompts)} in {time.monotonic() - started:.0f} s\n")


def read_again(
    engine: object, prompts: Sequence[Prompt], completions: Sequence[Completion], task: TaskType
) -> list[str | None]:
    """Give the greedy response to each instruction that was well formed, asked with the passage in sight."""
    again: dict[int, Prompt] = {}
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        pair = parse_pair(completion.text)
        if completion.finish != "stop" or not isinstance(pair, Pair):
            continue
        if prompt.messages:
            filled = pair.fill(prompt.passage.text).instruction
            asked = replace(prompt, messages=(Message("user", filled),), constraint=None)
        else:
            text = render_bonito(task.name, prompt.passage.text) + join_pair(pair.instruction, "")
            asked = replace(prompt, text=text, constraint=None)
        again[index] = asked
    greedy = Sampling(temperature=0, max_new_tokens=128, grammar=False)
    answers = engine.generate(list(again.values()), greedy)  # type: ignore[attr-defined]
    found = dict(zip(again, (answer.text.strip() for answer in answers), strict=True))
    return [found.get(index) for index in range(len(prompts))]


def draw_passages(data: Path, count: int, *, seed: int) -> Iterator[Passage]:
    """Draw passages evenly from every set, the same for every model."""
    files = sorted(data.glob("*/contexts.parquet"))
    if not files:
        raise SystemExit(f"no <name>/contexts.parquet in {data}")
    for index, path in enumerate(files):
        rows = [row for row in pq.read_table(path).to_pylist() if 80 <= len(row["text"]) <= LONGEST]
        share = count // len(files) + (index < count % len(files))
        for row in random.Random(seed).sample(rows, min(share, len(rows))):
            name = f"{path.parent.name}/{row['doc_id']}"
            yield Passage(f"{name}/{row['text'][:20]}", row["text"], path.parent.name, 0, len(row["text"]))


def print_overlap(outputs: Sequence[Path], pairs: Path) -> None:
    """Print how many of the passages that were asked about share a run of words with a training pair."""
    passages = {one.passage for path in outputs for one in read(path)[1]}
    found = overlapping(passages, pairs)
    print(f"{len(found)} of {len(passages)} passages share {_RUN} words in a row with a training pair in {pairs.name}")


def overlapping(passages: Collection[str], pairs: Path) -> set[str]:
    """Give the passages of which `_RUN` words in a row stand in a training pair, case and punctuation aside."""
    runs: dict[str, set[str]] = {}
    for passage in passages:
        for run in runs_of(passage):
            runs.setdefault(run, set()).add(passage)
    found: set[str] = set()
    for path in PairFolder(pairs).files:
        for batch in pq.ParquetFile(path).iter_batches(columns=["input", "output"]):
            for row in batch.to_pylist():
                for text in row.values():
                    found.update(*(runs[run] for run in runs_of(text) if run in runs))
    return found


def runs_of(text: str) -> Iterator[str]:
    """Give each run of `_RUN` words of a text; a shorter text is one run."""
    words = re.findall(r"\w+", text.casefold())
    for start in range(max(1, len(words) - _RUN + 1)):
        yield " ".join(words[start : start + _RUN])


Output = tuple[dict[str, object], list[Written]]


def read(path: Path) -> Output:
    """Read what `write` left."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    return json.loads(first), [Written(**json.loads(line)) for line in lines]


def draft_of(one: Written) -> Draft | None:
    """Give the pair that was written; None for one that is cut off or does not parse."""
    pair = parse_pair(one.text)
    if one.finish != "stop" or not isinstance(pair, Pair):
        return None
    return Draft(find_task(one.task), one.passage, pair.instruction, pair.response)


def _settled(draft: Draft) -> Draft:
    """Spell a span as the passage does, as a run would."""
    if not isinstance(draft.task.answer, Span):
        return draft
    return replace(draft, response=as_in_passage(draft.response, draft.passage))


def is_well_formed(draft: Draft | None) -> bool:
    """Say whether a pair is whole, refers to the passage and answers in its type's form."""
    return draft is not None and not any(check(draft) for check in draft.task.checks if check in FORM)


def print_table(outputs: Sequence[Output]) -> None:
    """Print a line per task type and model."""
    heads = ["task type", "model", "grammar", "pairs", "well formed", "about the passage", "agreement", "distinct"]
    heads += ["kept", "largest label"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for task in CATALOG:
        for told, written in outputs:
            mine = [one for one in written if one.task == task.name]
            if mine:
                grammar = "yes" if told["grammar"] else "no"
                cells = [task.name, _asked(told), grammar, str(len(mine)), *_measured(task, mine)]
                print(f"| {' | '.join(cells)} |")
    print()
    for told, written in outputs:
        mine = [draft for one in written if one.task.startswith("extractive") and (draft := draft_of(one))]
        verbatim = share(not checks.answer_in_passage(draft) for draft in mine)
        spelled = share(not checks.answer_in_passage(_settled(draft)) for draft in mine)
        if mine:
            print(f"{_asked(told)}, grammar {told['grammar']}: verbatim answers of extractive pairs {verbatim},")
            print(f"spelled as the passage does {spelled}")


def _asked(told: dict[str, object]) -> str:
    """Name the model, and how it was asked where that is not the default."""
    usual = Sampling().temperature
    greedy = ", greedy responses" if told["answer"] == "greedy" else ""
    warmth = f", temperature {told['temperature']}" if told.get("temperature", usual) != usual else ""
    return f"{told['model']}{greedy}{warmth}"


def _measured(task: TaskType, written: Sequence[Written]) -> list[str]:
    drafts = [draft_of(one) for one in written]
    whole = [draft for draft in drafts if draft]
    about = [draft for draft in whole if not checks.about_passage(draft)]
    agreeing = [
        normalise(one.second) == normalise(draft.response)
        for one, draft in zip(written, drafts, strict=True)
        if draft and one.second is not None
    ]
    settled = [_settled(draft) for draft in whole]
    kept = [draft for draft in settled if not any(check(draft) for check in task.checks)]
    distinct = len({normalise(draft.instruction) for draft in whole}) / max(1, len(whole))
    labels = Counter(_side(draft.response) for draft in kept)
    largest = max(labels.values(), default=0) / max(1, sum(labels.values()))
    has_labels = checks.answer_in_labels in task.checks
    return [
        share(is_well_formed(draft) for draft in drafts),
        f"{len(about) / max(1, len(whole)):.0%}",
        share(agreeing),
        f"{distinct:.0%}",
        f"{len(kept) / len(written):.0%}",
        f"{largest:.0%}" if has_labels else "",
    ]


def _side(response: str) -> str:
    word = normalise(response)
    return "positive" if word in POSITIVE else "negative" if word in NEGATIVE else word


def share(flags: Iterable[bool]) -> str:
    """Write a share in per cent."""
    found = list(flags)
    return f"{sum(found) / len(found):.1%}" if found else "-"


def print_page(outputs: Sequence[Output]) -> None:
    """Print twenty completions of every type, evenly drawn, the reason beside those that are left out."""
    ((told, written),) = outputs
    print(f"## Twenty of each type\n\nWritten by `{told['model']}` without a grammar, as they come. `{{{{context}}}}`")
    print("stands for the passage. What the checks refuse is marked with the reason.\n")
    for task in CATALOG:
        print(f"### {task.name}\n")
        mine = [one for one in written if one.task == task.name]
        for one in mine[:: max(1, len(mine) // _SHOWN)][:_SHOWN]:
            print(f"- *{one.source}*{_fault(task, one)}\n\n{_quoted(one.text)}\n")


def _fault(task: TaskType, one: Written) -> str:
    draft = draft_of(one)
    reason = "not whole" if draft is None else next((found for check in task.checks if (found := check(draft))), None)
    return f" — left out: {reason}" if reason else ""


def _quoted(text: str) -> str:
    return "  ```text\n" + "\n".join(f"  {line}" for line in text.strip().splitlines()) + "\n  ```"


if __name__ == "__main__":
    main()
