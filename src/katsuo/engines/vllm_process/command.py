"""What vLLM's server is started with: a command line and an environment, made from the settings alone."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from katsuo.engines.base import EngineSettings
from katsuo.errors import ModelError
from katsuo.models import locate_parts

BASE_NAME, ADAPTER_NAME = "base", "adapter"
"""What the server calls the model; no path of this machine reaches its answers."""
_LAUNCH = Path(__file__).with_name("launch.py")
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM makes room for."""
_OF_ANOTHER_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_KEYS = ("KATSUO_API_KEY", "OPENAI_API_KEY")


@dataclass(frozen=True)
class Plan:
    """One model to serve: where its weights lie, and the adapter beside them, if any."""

    base: Path
    adapter: Path | None
    arguments: tuple[str, ...]

    @property
    def served_name(self) -> str:
        """What the server calls the model that is asked."""
        return ADAPTER_NAME if self.adapter else BASE_NAME

    def command(self, python: str, socket: Path) -> list[str]:
        """Give the command that serves the model at a socket."""
        return [python, str(_LAUNCH), str(self.base), *self.arguments, "--uds", str(socket)]


def make_plan(settings: EngineSettings) -> Plan:
    """Find the model on this machine and put the server's arguments together; raise `ModelError` when it cannot be."""
    base, adapter = locate_parts(settings.model, settings.adapter, settings.options.revision)
    if not any(base.glob("*.safetensors")):
        raise ModelError(
            f'the model in "{base}" has no .safetensors file', hint="give a model whose weights are safetensors"
        )
    options = settings.options
    arguments = [
        *("--served-model-name", BASE_NAME),
        *("--load-format", "safetensors"),  # never a pickle
        *("--generation-config", "vllm"),  # a recipe says how to sample, not the model's folder
        *("--structured-outputs-config.backend", "guidance"),
        "--enable-prefix-caching",
        "--enable-tokenizer-info-endpoint",
        "--disable-uvicorn-access-log",
        *("--dtype", options.dtype),
        *("--tensor-parallel-size", str(options.tensor_parallel)),
    ]
    if options.context_tokens:
        arguments += ["--max-model-len", str(options.context_tokens)]
    if options.trust_remote_code:
        arguments.append("--trust-remote-code")
    if adapter:
        arguments += ["--enable-lora", "--max-lora-rank", str(_room_for(adapter))]
        arguments += ["--lora-modules", f"{ADAPTER_NAME}={adapter}"]
    return Plan(base, adapter, (*arguments, *options.vllm_arguments))


def environment(python: str, key: str, sockets: Path) -> dict[str, str]:
    """
    Give the server's environment: this one, without keys of others, without reports and without a network.

    Its processes speak to each other at sockets in the folder `sockets`.
    """
    dropped = {*_KEYS, *(_OF_ANOTHER_PYTHON if python != sys.executable else ())}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {
        "VLLM_RPC_BASE_PATH": str(sockets),
        **kept,
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _room_for(adapter: Path) -> int:
    """Give the smallest rank that vLLM makes room for and that the adapter fits in."""
    path = adapter / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        ranks = [int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f'cannot read "{path}": {error!r}', hint="give --adapter a LoRA adapter's folder") from error
    room = next((rank for rank in _RANKS if rank >= max(ranks)), None)
    foreign = [name for name in ("use_dora", "modules_to_save") if config.get(name)]
    if room is None or foreign:
        why = f"its {foreign[0]}" if foreign else f"its rank of {max(ranks)}"
        raise ModelError(
            f'vLLM cannot add the adapter in "{adapter}" to a model: {why} is more than it takes',
            hint="make one model of the two with `katsuo merge`, and give that as --model",
        )
    return room
