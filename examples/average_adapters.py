"""
Average adapters that were trained on from one and the same adapter, factor by factor, into one.

    python examples/average_adapters.py KATSUO-4 KATSUO-5 -o KATSUO

The adapter that the others went on from may be the first of them: the average is then a part of the way that they
went. It often does better than each of those that are averaged (model soups, Wortsman et al. 2022, arXiv 2203.05482)
and costs nothing when it is asked. It is the factors of LoRA that are averaged, not their products: trainings from one
start leave them close to each other. Adapters of other starts have nothing in common and are refused.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from katsuo.models.locate import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_manifest, revision_of
from katsuo.train.weights.start import add_up


def main() -> None:
    """Read the adapters, check that they belong together, and write their average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", type=Path, nargs="+", help="folders of adapters that were trained on from one")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    average(options.adapters, options.output)


def average(adapters: Sequence[Path], output: Path) -> None:
    """
    Write the average of `adapters` to the new folder `output`, with a manifest that names them.

    What it says of the training sums up those that went on from the common start. Exits with a message where they did
    not go on from one adapter, or where their configurations differ.
    """
    manifests = [read_manifest(folder) for folder in adapters]
    came_from = [manifest.get("from", {}).get("revision") for manifest in manifests]
    trained = manifests
    if came_from[1:2] == [revision_of(adapters[0])]:
        trained, came_from = manifests[1:], came_from[1:]
    starts = set(came_from)
    if len(starts) > 1 or None in starts:
        raise SystemExit(
            f"these adapters went on from {len(starts)} adapters, or from none; average those of one start"
        )
    configurations = [json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")) for folder in adapters]
    if any(_shape(one) != _shape(configurations[0]) for one in configurations):
        raise SystemExit("these adapters differ in rank, alpha or target modules; average those of one shape")
    weights = [load_file(folder / ADAPTER_WEIGHTS) for folder in adapters]
    mean = {
        name: torch.stack([one[name].float() for one in weights]).mean(0).to(tensor.dtype)
        for name, tensor in weights[0].items()
    }
    output.mkdir(parents=True)
    save_file(mean, output / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    shutil.copy(adapters[0] / ADAPTER_CONFIG, output)
    manifest = trained[0] | {
        "command": "examples/average_adapters.py",
        "data": {"sources": add_up(source for one in trained for source in one["data"]["sources"])},
        "examples": sum(one["examples"] for one in trained),
        "averaged": [_told(folder, one) for folder, one in zip(adapters, manifests, strict=True)],
        "fitted": {part: sum(one["fitted"][part] for one in trained) for part in ("steps", "seconds")},
    }
    for part in ("rejected", "logits_change"):
        manifest.pop(part, None)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (output / "katsuo.json").write_text(text + "\n", encoding="utf-8")


def _shape(configuration: dict[str, Any]) -> tuple[Any, ...]:
    return (configuration["r"], configuration["lora_alpha"], sorted(configuration["target_modules"]))


def _told(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    return {"name": folder.resolve().name} | {part: manifest.get(part) for part in ("data", "fitted", "logits_change")}


if __name__ == "__main__":
    main()
