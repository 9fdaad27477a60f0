"""The `dataset_info.json` by which LLaMA-Factory finds a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping

from katsuo.export.order import Order


def write_dataset_info(order: Order, description: Mapping[str, object]) -> None:
    """
    Write one entry per split: the run's name for "train", the run's name and the split's for any other.

    `description` is the rest of an entry: formatting, columns, tags. A folder of shards is named without its glob.
    """
    entries = {
        order.name if split == "train" else f"{order.name}_{split}": {
            "file_name": pattern.removesuffix("/*.parquet"),
            **description,
        }
        for split, pattern in order.data_files.items()
    }
    text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    (order.folder / "dataset_info.json").write_text(text, encoding="utf-8")
