"""
Ranked questions per second: katsuo against reading the prompt again for every choice, on the same model and items.

python benchmarks/ranking.py [--data DATA] [--suite pubmed_qa] [--limit 32] [--templates 1] [--choices 3 2]

Three ways in one run, every one at its best batch size and with the same number format:
a   the prompt with every choice, padded, sorted by length, logits of every token: what lm-evaluation-harness does for
    answers of more than one token
a+  the same, with logits of the scored tokens alone
b   katsuo: choices, and templates that begin alike, share what they have in common
Every answer is scored with its end, so that it has more than one token. The predictions are compared: a and b take the
same choice, except where the two choices are closer than what the number format leaves open; how many such items there
are is printed. `--dtype float32` leaves none open. Without --data the docs of this repository are the passages.
Does not measure the cutting of prompts, reading rows, or writing results.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import katsuo.engines.hf  # noqa: F401 - before torch: see there

# isort: split
import torch

from katsuo import api
from katsuo.config import EngineOptions
from katsuo.engines import Choices, EngineSettings
from katsuo.engines.hf.engine import HfEngine
from katsuo.evaluate.ask import Examiner
from katsuo.evaluate.settings import make_settings
from katsuo.evaluate.suites import make_sheet, task_suite
from katsuo.tasks.style import asker

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    """Measure every number of choices asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--suite", default="pubmed_qa")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--templates", type=int, default=1)
    parser.add_argument("--choices", type=int, nargs="+", default=[3, 2])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=1, help="the fastest of so many rounds counts")
    parser.add_argument(
        "--cpu-seconds", action="store_true", help="count processor time: for a machine that others use"
    )
    options = parser.parse_args()
    if options.cpu_seconds:
        torch.set_num_threads(1)
        time.perf_counter = time.process_time  # type: ignore[assignment]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {options}\n")
    engines = {}
    for size in options.batch_sizes:
        told = EngineOptions(dtype=options.dtype, device=options.device, batch_size=size)
        engines[size] = HfEngine(EngineSettings(options.model, options=told))
    asked = ask(options, next(iter(engines.values())))
    for count in options.choices:
        compare(options, engines, [Choices(one.prompt, one.answers[:count]) for one in asked], count)


def compare(options: argparse.Namespace, engines: dict[int, HfEngine], asked: list[Choices], count: int) -> None:
    """Print the table for one number of choices."""
    print(f"{len(asked)} questions, {count} choices\n\n| way | batch | seconds | questions/s |\n|---|---|---|---|")
    best: dict[str, float] = {}
    found: dict[str, list[list[float]]] = {}
    ways = {"a": (by_library, False), "a+": (by_library, True)}
    for name, (way, is_lean) in ways.items():
        for size, engine in engines.items():
            seconds, found[name] = fastest(options, lambda: way(engine, asked, size, is_lean=is_lean))  # noqa: B023
            best[name] = max(best.get(name, 0.0), row(name, size, seconds, len(asked)))
    for size, engine in engines.items():
        seconds, scores = fastest(options, lambda: engine.score(asked))  # noqa: B023
        found[f"b {size}"] = found["b"] = [list(one.log_probabilities) for one in scores]
        best["b"] = max(best.get("b", 0.0), row("b", size, seconds, len(asked)))
    print(f"\nb / a = {best['b'] / best['a']:.2f}   b / a+ = {best['b'] / best['a+']:.2f}")
    gap = largest_gap(found["b"], found["a"])
    other = [place for place, pair in enumerate(zip(found["b"], found["a"], strict=True)) if differ(*pair)]
    close = [margin(found["a"][place]) for place in other]
    print(f"largest difference of a log-probability, b and a: {gap:.4f}")
    print(f"other predictions: {len(other)} of {len(asked)}" + (f", margins up to {max(close):.4f}" if close else ""))
    runs = [scores for name, scores in found.items() if name.startswith("b ")]
    moved = max(largest_gap(run, runs[0]) for run in runs)
    print(f"largest difference of a log-probability, b at its batch sizes: {moved:.4f}\n")


def fastest(options: argparse.Namespace, work: Any) -> tuple[float, Any]:
    """Give the seconds of the fastest round, and what came out."""
    taken = []
    for _ in range(options.rounds):
        started = time.perf_counter()
        outcome = work()
        taken.append(time.perf_counter() - started)
    return min(taken), outcome


def row(way: str, size: int, seconds: float, count: int) -> float:
    """Print a line; give questions per second."""
    print(f"| {way} | {size} | {seconds:.2f} | {count / seconds:.2f} |", flush=True)
    return count / seconds


def largest_gap(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Give the largest difference between two runs' scores."""
    pairs = zip(ours, theirs, strict=True)
    return max(abs(one - other) for pair in pairs for one, other in zip(*pair, strict=True))


def differ(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Say whether two lists of scores have their highest at other places."""
    return ours.index(max(ours)) != theirs.index(max(theirs))


def margin(scores: Sequence[float]) -> float:
    """Give how far the best choice is ahead of the next."""
    first, second = sorted(scores, reverse=True)[:2]
    return first - second


def ask(options: argparse.Namespace, engine: HfEngine) -> list[Choices]:
    """Write the questions, each with its end scored."""
    settings = make_settings({"limit": options.limit, "templates": options.templates, "eos": "yes"})
    if options.data:
        (sheet,) = api.read_sheets(options.suite, settings, data=options.data)
    else:
        texts = "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
        starts = enumerate(range(0, len(texts) - 2000, 700))
        pieces = [texts[start : start + 900 + 37 * (number % 19)] for number, start in starts]
        rows = [{"passage": piece, "question": "Is this about a file?", "answer": "yes"} for piece in pieces]
        suite = task_suite("ynqa").relabelled(["yes", "no", "maybe"]).narrowed(options.templates)
        sheet = make_sheet(suite, rows, limit=options.limit)
    examiner = Examiner(engine, asker("chat"), True, settings, engine.count_tokens)
    questions = [question for item in sheet.items for question in sheet.of(item)]
    texts_asked = examiner.instructions(questions)
    return [examiner.choices(*pair) for pair in zip(questions, texts_asked, strict=True)]


@torch.inference_mode()
def by_library(engine: HfEngine, asked: Sequence[Choices], size: int, *, is_lean: bool) -> list[list[float]]:
    """Score the prompt with every choice, as transformers alone would."""
    encoder = engine._scorer or (engine.score(asked[:1]) and engine._scorer)
    assert encoder is not None
    paths = [path for question in asked for path in encoder._encode(question, 0)]
    model: Any = engine._loaded.model
    totals: dict[int, float] = {}
    order = sorted(range(len(paths)), key=lambda place: -len(paths[place].tokens))
    for batch in portions(order, size):
        width = max(len(paths[place].tokens) for place in batch)
        tokens = torch.zeros(len(batch), width, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for line, place in enumerate(batch):
            tokens[line, width - len(paths[place].tokens) :] = torch.from_numpy(paths[place].tokens)
            mask[line, width - len(paths[place].tokens) :] = 1
        kept = max(len(paths[place].tokens) - paths[place].start for place in batch) + 1 if is_lean else 0
        given = {"input_ids": tokens.to(model.device), "attention_mask": mask.to(model.device)}
        given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
        logs = model(**given, use_cache=False, logits_to_keep=kept).logits.float().log_softmax(-1)
        for line, place in enumerate(batch):
            answer = torch.from_numpy(paths[place].tokens[paths[place].start :])
            steps = torch.arange(logs.shape[1] - len(answer) - 1, logs.shape[1] - 1)
            totals[place] = float(logs[line, steps, answer].sum())
    places = iter(range(len(paths)))
    return [[totals[next(places)] for _ in question.answers] for question in asked]


def portions(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Part a list."""
    return (order[start : start + size] for start in range(0, len(order), size))


if __name__ == "__main__":
    main()
