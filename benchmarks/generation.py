"""
Measure new tokens per second: the bare library, katsuo and the naive loop, on the same prompts in one run.

    python benchmarks/generation.py speed      --documents FOLDER_OR_PARQUET
    python benchmarks/generation.py variants   what each part of the engine brings
    python benchmarks/generation.py grammar    well-formed share and cost of decoding under grammars
    python benchmarks/generation.py same-rows  share of rows that do not change with batch size and order

The table is printed as Markdown; generation.md keeps it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from katsuo.config import EngineOptions, Sampling
from katsuo.engines.base import EngineSettings
from katsuo.engines.hf import engine as hf
from katsuo.engines.hf import memory as hf_memory
from katsuo.engines.hf import sample as hf_sample
from katsuo.engines.hf.engine import HfEngine
from katsuo.engines.hf.load import LoadedModel, load_model
from katsuo.engines.hf.prompts import encode
from katsuo.records import Completion, Passage, Prompt
from katsuo.tasks import find_task
from katsuo.tasks.codec import BonitoV1, Instruct, parse_pair
from katsuo.tasks.grammar import TaskConstraint

DOCS = Path(__file__).parent.parent / "docs"
SMALLEST, LARGEST = 400, 1400
"""Characters of a passage; lengths differ, as those of real passages do."""


def main() -> None:
    """Measure one part and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "variants", "grammar", "same-rows"])
    parser.add_argument(
        "--documents", type=Path, default=DOCS, help="a folder of .md and .txt, or a .parquet with text"
    )
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--tasks", nargs="+", default=["exqa", "ynqa", "mcqa"])
    parser.add_argument(
        "--cpu-seconds", action="store_true", help="count processor time: for a machine that others use"
    )
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--codec", default="bonito-v1", choices=["bonito-v1", "instruct"])
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.cpu_seconds:
        torch.set_num_threads(1)
        time.perf_counter = time.process_time  # type: ignore[assignment]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {options}\n")
    {"speed": speed, "variants": variants, "grammar": grammar, "same-rows": same_rows}[options.part](options)


def speed(options: argparse.Namespace) -> None:
    """Print the three ways side by side, each at every batch size that is its own to choose."""
    engine = open_hf(options)
    bare = open_bare(options)
    prompts = make_prompts(options, with_grammar=False)
    lengths = [
        len(encode(engine._loaded.tokenizer, one, end_tokens=engine._loaded.end_tokens).tokens) for one in prompts
    ]
    print(
        f"{len(prompts)} prompts, {min(lengths)} to {max(lengths)} tokens, {statistics.mean(lengths):.0f} on average\n"
    )
    table = Table("way", "batch", "new tokens", "seconds", "new tokens/s")
    warm_up(engine, prompts, options)
    best: dict[str, float] = {}
    for size in options.batch_sizes:
        for way, order in (("a bare library, sorted", by_length(bare, prompts)), ("a bare library", prompts)):
            best["a"] = max(best.get("a", 0), table.add(way, size, *by_library(bare, order, size, options)))
    for size in options.batch_sizes:
        best["b"] = max(best.get("b", 0), table.add("b katsuo", size, *by_katsuo(engine, prompts, size, options)))
    best["c"] = table.add("c naive loop", 8, *by_library(bare, prompts, 8, options))
    print(f"\nb / a = {best['b'] / best['a']:.2f}   b / c = {best['b'] / best['c']:.2f}")


def variants(options: argparse.Namespace) -> None:
    """Print katsuo with one part of it taken away or added at a time."""
    engine = open_hf(options)
    prompts = make_prompts(options, with_grammar=False)
    table = Table("variant", "batch", "new tokens", "seconds", "new tokens/s")
    size = max(options.batch_sizes)

    def measure(name: str, engine: HfEngine = engine) -> None:
        warm_up(engine, prompts, options)
        engine._decoder.memory.clear()
        table.add(name, size, *by_katsuo(engine, prompts, size, options))

    measure("as it is")
    engine._decoder.memory.is_refillable = False
    measure("no refill: a batch starts and ends together")
    engine._decoder.memory.is_refillable = True
    with changed(hf_memory, "shared_length", lambda *_: 0):
        measure("shared openings read again")
    with changed(hf_sample, "CANDIDATES", 10**9):
        measure("the nucleus by sorting the whole vocabulary")
    with changed(hf, "pack_linears", lambda _: 0):
        plain = open_hf(options)
    measure("weights not packed", plain)
    measure("as it is, again")
    started = time.perf_counter()
    compile_parts(plain._loaded.model)
    warm_up(plain, prompts, options)
    print(f"compiled in {time.perf_counter() - started:.0f} s")
    measure("weights not packed, norms and feed-forward compiled", plain)


def grammar(options: argparse.Namespace) -> None:
    """Print how many completions are well formed with and without grammars, and what the grammars cost."""
    engine = open_hf(options)
    table = Table("task", "grammar", "well formed", "finished", "errors", "new tokens", "seconds", "new tokens/s")
    for task in options.tasks:
        for is_on in (False, True):
            prompts = make_prompts(options, with_grammar=is_on, tasks=[task])
            warm_up(engine, prompts, options)
            started = time.perf_counter()
            answers = engine.generate(prompts, sampling(options))
            seconds = time.perf_counter() - started
            table.add_row(
                task,
                "on" if is_on else "off",
                share(well_formed(one, ask) for one, ask in zip(answers, prompts, strict=True)),
                share(one.finish == "stop" for one in answers),
                sum(one.finish == "error" for one in answers),
                tokens := sum(one.new_tokens for one in answers),
                f"{seconds:.1f}",
                f"{tokens / seconds:.0f}",
            )


def same_rows(options: argparse.Namespace) -> None:
    """Print the share of rows that come out the same when the batch around them changes."""
    table = Table("number format", "batch 1 = batch 8", "batch 8 = batch 32", "in order = shuffled", "twice the same")
    for number_format in ("bfloat16", "float32"):
        engine = open_hf(options, dtype=number_format)
        prompts = make_prompts(options, with_grammar=False)
        runs = {size: run_fresh(engine, prompts, size, options) for size in (1, 8, 32)}
        shuffled = run_fresh(engine, prompts[::-1], 8, options)[::-1]
        again = run_fresh(engine, prompts, 8, options)
        pairs = [(runs[1], runs[8]), (runs[8], runs[32]), (runs[8], shuffled), (runs[8], again)]
        table.add_row(number_format, *(share(a == b for a, b in zip(*pair, strict=True)) for pair in pairs))


def open_hf(options: argparse.Namespace, dtype: str = "") -> HfEngine:
    """Open the engine."""
    return HfEngine(settings(options, dtype))


def open_bare(options: argparse.Namespace) -> LoadedModel:
    """Load the model a second time, as transformers has it: the engine rearranges its own."""
    return load_model(settings(options))


def settings(options: argparse.Namespace, dtype: str = "") -> EngineSettings:
    """Say which model to load, on the processor."""
    return EngineSettings(model=options.model, options=EngineOptions(device="cpu", dtype=dtype or options.dtype))


def sampling(options: argparse.Namespace) -> Sampling:
    """Sample as the recipe does, up to the length asked for."""
    return Sampling(max_new_tokens=options.max_new_tokens)


def make_prompts(options: argparse.Namespace, *, with_grammar: bool, tasks: Sequence[str] = ()) -> list[Prompt]:
    """Cut passages of different lengths from the documents, and ask about them in document order."""
    codec = {"bonito-v1": BonitoV1, "instruct": Instruct}[options.codec]()
    texts = read_texts(options.documents)
    prompts: list[Prompt] = []
    wanted = tasks or options.tasks
    for number in range(options.prompts):
        task = find_task(wanted[number % len(wanted)])
        length = SMALLEST + (number * 7919) % (LARGEST - SMALLEST)
        source = texts[number % len(texts)]
        start = (number // len(texts)) * LARGEST
        text = source[start : start + length].strip() or source[:length].strip()
        passage = Passage(str(number), text, "documents", 0, len(text))
        raw, messages = codec.render(task, text)
        frame = task.frame if codec.is_framed else None
        constraint = TaskConstraint(task.answer, text, frame) if with_grammar else None
        prompts.append(Prompt(str(number), passage, task.short, 0, number, raw, messages, constraint))
    return prompts


def read_texts(documents: Path) -> list[str]:
    """Read what is long enough to cut a passage from."""
    if documents.suffix == ".parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(documents).to_pylist()
        column = next(name for name in ("text", "context") if name in rows[0])
        return [row[column] for row in rows if len(row[column]) >= SMALLEST]
    files = sorted(path for path in documents.rglob("*") if path.suffix in (".md", ".txt"))
    texts = [text for path in files if len(text := path.read_text(encoding="utf-8")) >= SMALLEST]
    if not texts:
        raise SystemExit(f"no text of {SMALLEST} characters in {documents}")
    return texts


def by_length(loaded: LoadedModel, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Put the longest first."""
    return sorted(prompts, key=lambda one: -len(encode(loaded.tokenizer, one, end_tokens=loaded.end_tokens).tokens))


def by_katsuo(engine: HfEngine, prompts: Sequence[Prompt], size: int, options: argparse.Namespace) -> tuple[int, float]:
    """Count what the engine writes, and the seconds."""
    object.__setattr__(engine._decoder, "batch_size", size)
    started = time.perf_counter()
    answers = engine.generate(prompts, sampling(options))
    return sum(one.new_tokens for one in answers), time.perf_counter() - started


def by_library(
    loaded: LoadedModel, prompts: Sequence[Prompt], size: int, options: argparse.Namespace
) -> tuple[int, float]:
    """Call `generate` of transformers on one batch after the other, padded on the left."""
    tokenizer, model = loaded.tokenizer, loaded.model
    wanted = sampling(options)
    tokens = 0
    started = time.perf_counter()
    for first in range(0, len(prompts), size):
        batch = [
            torch.from_numpy(encode(tokenizer, one, end_tokens=loaded.end_tokens).tokens)
            for one in prompts[first : first + size]
        ]
        width = max(len(one) for one in batch)
        padded = torch.full((len(batch), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(padded)
        for line, one in enumerate(batch):
            padded[line, width - len(one) :] = one
            mask[line, width - len(one) :] = 1
        with torch.inference_mode():
            written = model.generate(
                input_ids=padded,
                attention_mask=mask,
                do_sample=True,
                temperature=wanted.temperature,
                top_p=wanted.top_p,
                top_k=0,
                max_new_tokens=wanted.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )[:, width:]
        for line in written.tolist():
            ends = [place for place, token in enumerate(line) if token in loaded.end_tokens]
            tokens += ends[0] + 1 if ends else len(line)
            tokenizer.decode(line, skip_special_tokens=True)
    return tokens, time.perf_counter() - started


def run_fresh(engine: HfEngine, prompts: Sequence[Prompt], size: int, options: argparse.Namespace) -> list[str]:
    """Give the texts, with nothing kept from earlier runs."""
    engine._decoder.memory.clear()
    object.__setattr__(engine._decoder, "batch_size", size)
    return [one.text for one in engine.generate(prompts, sampling(options))]


def warm_up(engine: HfEngine, prompts: Sequence[Prompt], options: argparse.Namespace) -> None:
    """Make first-call costs happen before the clock starts."""
    engine.generate(prompts[:4], sampling(options).model_copy(update={"max_new_tokens": 8}))


def well_formed(answer: Completion, prompt: Prompt) -> bool:
    """Say whether a completion parses and its response is one that the grammar of its own instruction allows."""
    import llguidance

    pair = parse_pair(answer.text)
    if answer.finish != "stop" or not hasattr(pair, "response"):
        return False
    shape = find_task(prompt.task_type).answer
    lark = TaskConstraint(shape, prompt.passage.text).answer(pair.instruction)
    tokenizer = llguidance.LLTokenizer("byte")
    matcher = llguidance.LLMatcher(tokenizer, lark, log_level=0)
    tokens = tokenizer.tokenize_str(pair.response)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def compile_parts(model: Any) -> None:
    """Compile what lies between the matrix products: the norms and the feed-forward blocks."""
    for name, module in model.named_modules():
        if name.endswith(("norm", "layernorm", "mlp")):
            module.compile(dynamic=True)


class changed:  # noqa: N801
    """Give a constant of a module another value for a while."""

    def __init__(self, module: Any, name: str, value: object) -> None:
        self.module, self.name, self.value = module, name, value

    def __enter__(self) -> None:
        self.before = getattr(self.module, self.name)
        setattr(self.module, self.name, self.value)

    def __exit__(self, *_: object) -> None:
        setattr(self.module, self.name, self.before)


class Table:
    """A Markdown table that prints each row as it is measured."""

    def __init__(self, *columns: str) -> None:
        self.add_row(*columns)
        self.add_row(*("---" for _ in columns))

    def add(self, way: str, batch: int, tokens: int, seconds: float) -> float:
        """Print one measurement and give its tokens per second."""
        self.add_row(way, batch, tokens, f"{seconds:.1f}", f"{tokens / seconds:.0f}")
        return tokens / seconds

    def add_row(self, *cells: object) -> None:
        """Print one row."""
        print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def share(flags: Any) -> str:
    """Give the share of true flags in percent."""
    listed = list(flags)
    return f"{100 * sum(listed) / len(listed):.0f}%"


if __name__ == "__main__":
    main()
