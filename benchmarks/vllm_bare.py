"""
vLLM asked directly, for engines.py: `LLM.generate` on all prompts at once, no server, no katsuo.

Runs in the Python that has vLLM. It is told as its argument what katsuo's engine is told.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE"):
    os.environ[_name] = "1"


def main() -> None:
    """Load the model, say so, and answer until the questions end."""
    options = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints must not come between the answers

    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.platforms import current_platform
    except ModuleNotFoundError as error:
        tell({"absent": f'{sys.executable} has no package "{error.name}"'})
        return
    base, adapter = options["base"], options["adapter_folder"]
    room = {"enable_lora": True, "max_lora_rank": options["room"]} if adapter else {}
    if current_platform.is_cpu():  # as katsuo does, and for its reason: see launch.py
        room["enable_chunked_prefill"] = False
    llm = LLM(
        base,
        dtype=options["dtype"],
        load_format="safetensors",
        generation_config="vllm",
        enable_prefix_caching=True,
        **room,
        **options["vllm"],
    )
    lora = LoRARequest("adapter", 1, adapter) if adapter else None
    tell({"ready": True})
    for line in sys.stdin:
        batch = json.loads(line)
        rows = batch["rows"]
        sampling = [
            SamplingParams(temperature=0.5, top_p=0.95, max_tokens=batch["max_new_tokens"], seed=place)
            for place in range(len(rows))
        ]
        started = time.perf_counter()
        outputs = llm.generate([row["prompt"] for row in rows], sampling, lora_request=lora, use_tqdm=False)
        seconds = time.perf_counter() - started
        tell({"tokens": sum(len(output.outputs[0].token_ids) for output in outputs), "seconds": seconds})


if __name__ == "__main__":
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).parent)]
    main()
