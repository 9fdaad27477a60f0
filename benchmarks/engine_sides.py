"""
One side of one engine for engines.py: katsuo's, or that of the bare library asked for the same prompts.

It is told its settings as its argument, says when it is ready, and then answers one line of JSON with another.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Batch = dict[str, Any]
Answer = dict[str, Any]
SEED_BITS = 31


def main() -> None:
    """Open the side that is asked for and answer until the questions end."""
    if sys.argv[1] == "serve":
        serve_llama(json.loads(sys.argv[2]))
        return
    options = Namespace(**json.loads(sys.argv[1]))
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(answer: Answer) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    from katsuo.errors import KatsuoError

    try:
        with open_side(options) as answer:
            tell({"ready": True})
            for line in sys.stdin:
                tell(answer(json.loads(line)))
    except (KatsuoError, ModuleNotFoundError) as error:
        tell({"absent": " ".join(str(error).split())})


@contextmanager
def open_side(options: Namespace) -> Iterator[Callable[[Batch], Answer]]:
    """Open one side of one engine, and the server that it asks, if any."""
    if options.engine == "openai":
        with llama_server(options) as address:
            yield open_katsuo(options, address) if options.side == "katsuo" else bare_openai(options, address)
    elif options.side == "katsuo":
        yield open_katsuo(options, None)
    else:
        yield {"hf": bare_hf, "llamacpp": bare_llamacpp}[options.engine](options)


def open_katsuo(options: Namespace, address: str | None) -> Callable[[Batch], Answer]:
    """Open katsuo's engine, as a recipe would."""
    from katsuo.config import EngineOptions
    from katsuo.engines import EngineSettings, open_engine

    arguments = [word for name, value in options.vllm.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    told = EngineOptions(
        **{"batch_size": options.batch_size, "dtype": options.dtype, "base_url": address, "timeout_s": 1800},
        vllm_arguments=tuple(arguments),
    )
    engine = open_engine(options.engine, EngineSettings(options.model, options=told))

    def answer(batch: Batch) -> Answer:
        return by_pipeline(engine, batch) if batch["kind"] == "kept" else by_engine(engine, batch)

    return answer


def by_engine(engine: Any, batch: Batch) -> Answer:
    """Ask the engine without grammars, as the bare library is asked."""
    from katsuo.config import Sampling
    from katsuo.records import Passage, Prompt

    prompts = [
        Prompt(str(place), Passage("", "", "", 0, 0), row["task"], 0, seed_of(batch, place), row["prompt"])
        for place, row in enumerate(batch["rows"])
    ]
    started = time.perf_counter()
    answers = engine.generate(prompts, Sampling(max_new_tokens=batch["max_new_tokens"], grammar=False))
    seconds = time.perf_counter() - started
    wrong = [one.error or one.finish for one in answers if one.finish not in ("stop", "length")]
    assert not wrong, wrong[0]
    return {"tokens": sum(one.new_tokens for one in answers), "seconds": seconds}


def by_pipeline(engine: Any, batch: Batch) -> Answer:
    """Ask as a run does: grammars on, every completion judged, near-duplicates left out."""
    from katsuo.config import Sampling
    from katsuo.pipeline.answer import Answerer, without_duplicates
    from katsuo.pipeline.similar import NearDuplicates
    from katsuo.records import Passage
    from katsuo.tasks import find_task
    from katsuo.tasks.codec import find_codec

    started = time.perf_counter()
    kept = 0
    seen = NearDuplicates(0.8)
    rows = batch["rows"]
    for name in dict.fromkeys(row["task"] for row in rows):
        texts = [row["passage"] for row in rows if row["task"] == name]
        passages = [Passage(str(place), text, "documents", 0, len(text)) for place, text in enumerate(texts)]
        answerer = Answerer(
            *(engine, (find_task(name),), find_codec("bonito-v1")),
            *(Sampling(max_new_tokens=batch["max_new_tokens"]), batch["seed"]),
        )
        kept += len(without_duplicates(answerer.answer(passages), answerer.by_name, seen).examples)
    seen.close()
    return {"kept": kept, "prompts": len(rows), "seconds": time.perf_counter() - started}


def bare_hf(options: Namespace) -> Callable[[Batch], Answer]:
    """Call `generate` of transformers on batches of like length."""
    import generation
    from katsuo.records import Passage, Prompt

    loaded = generation.open_bare(options)

    def answer(batch: Batch) -> Answer:
        nothing = Passage("", "", "", 0, 0)
        prompts = [Prompt("", nothing, row["task"], 0, 0, row["prompt"]) for row in batch["rows"]]
        ordered = generation.by_length(loaded, prompts)
        tokens, seconds = generation.by_library(loaded, ordered, options.batch_size, options)
        return {"tokens": tokens, "seconds": seconds}

    return answer


def bare_llamacpp(options: Namespace) -> Callable[[Batch], Answer]:
    """Ask xllamacpp in this process, from a thread per slot."""
    import xllamacpp

    server = xllamacpp.Server(llama_params(options))

    def ask(body: dict[str, Any]) -> int:
        told: list[dict[str, Any]] = []
        server.handle_completions(body, lambda chunk: told.append(chunk) and None)
        return int(told[-1]["usage"]["completion_tokens"])

    def answer(batch: Batch) -> Answer:
        bodies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        counts: list[int] = []
        for place, row in enumerate(batch["rows"]):
            bodies.put(body_of(batch, place, row))

        def work() -> None:
            while True:
                try:
                    counts.append(ask(bodies.get_nowait()))
                except queue.Empty:
                    return

        threads = [threading.Thread(target=work) for _ in range(options.batch_size)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(counts) == len(batch["rows"])
        return {"tokens": sum(counts), "seconds": time.perf_counter() - started}

    return answer


def bare_openai(options: Namespace, address: str) -> Callable[[Batch], Answer]:
    """Ask a server by one client, as many requests at once as it has slots."""
    import httpx2

    async def ask_all(batch: Batch) -> int:
        gate = asyncio.Semaphore(options.batch_size)
        async with httpx2.AsyncClient(timeout=1800, trust_env=False) as client:

            async def ask(place: int, row: dict[str, Any]) -> int:
                async with gate:
                    reply = await client.post(f"{address}/completions", json=body_of(batch, place, row))
                return int(reply.raise_for_status().json()["usage"]["completion_tokens"])

            return sum(await asyncio.gather(*(ask(place, row) for place, row in enumerate(batch["rows"]))))

    def answer(batch: Batch) -> Answer:
        started = time.perf_counter()
        tokens = asyncio.run(ask_all(batch))
        return {"tokens": tokens, "seconds": time.perf_counter() - started}

    return answer


def body_of(batch: Batch, place: int, row: dict[str, Any]) -> dict[str, Any]:
    """Ask llama.cpp for the recipe's own sampling and nothing beyond it."""
    return {
        "prompt": row["prompt"],
        "max_tokens": batch["max_new_tokens"],
        "temperature": 0.5,
        "top_p": 0.95,
        "seed": seed_of(batch, place),
        "samplers": ["temperature", "top_p"],
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
    }


def seed_of(batch: Batch, place: int) -> int:
    """Give every prompt of a run a seed of its own."""
    return (batch["seed"] * 1_000_003 + place) % (1 << SEED_BITS)


def llama_params(options: Namespace) -> Any:
    """Open the model with as many slots as katsuo does, and its arithmetic unless told to keep llama.cpp's defaults."""
    import xllamacpp

    from katsuo.models.gguf_files.find import find_gguf

    params = xllamacpp.CommonParams()
    params.model.path = str(find_gguf(options.model))
    params.n_parallel = options.batch_size
    params.n_ctx = options.batch_size * 1024
    params.kv_unified = False
    params.fit_params = False
    if not options.llama_defaults:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_ram_mib = 0
    params.warmup = False
    params.port = 0
    params.verbosity = -1
    return params


@contextmanager
def llama_server(options: Namespace) -> Iterator[str]:
    """Start llama.cpp's server in a process of its own."""
    command = [sys.executable, __file__, "serve", json.dumps(vars(options))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address.startswith("http"):
            from katsuo.errors import EngineError

            raise EngineError("llama.cpp's server does not start", hint="katsuo pull --gguf katsuo-135m")
        yield f"{address}/v1"
    finally:
        process.kill()
        process.wait()


def serve_llama(told: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    import xllamacpp

    server = xllamacpp.Server(llama_params(Namespace(**told)))
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
