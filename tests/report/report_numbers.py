"""Numbers of an experiment as `katsuo run` leaves them."""

from __future__ import annotations

from typing import Any


def gain(difference: float, low: float, high: float) -> dict[str, Any]:
    told = {"difference": difference, "low": low, "high": high, "items": 40}
    return {**told, "is_significant": low > 0 or high < 0}


def results() -> dict[str, Any]:
    """Give numbers in the shape of `results.json`."""
    keys = ("katsuo", "majority", "zero-shot", "shuffled")
    scores = {
        key: {
            "mean": 50.0 - place,
            "templates": {"first": 52.0 - place, "second": 48.0 - place},
            "seeds": [51.5 - place, 48.5 - place],
            "beside": {"accuracy": 61.0 - place},
        }
        for place, key in enumerate(keys)
    }
    gains = {"majority": gain(1.0, -2.0, 4.0), "zero-shot": gain(2.04, 0.5, 3.5), "shuffled": gain(-3.0, -5.0, -1.0)}
    told = {
        "task_type": "yes-no question answering",
        "metric": "macro_f1",
        "items": 40,
        "rows": 42,
        "left_out": {"empty": 1, "duplicate": 1},
        "templates": ["first", "second"],
        "scores": scores,
        "gains": {key: {**one, "templates": {"first": 1.5, "second": 2.5}} for key, one in gains.items()},
        "chosen": {"katsuo": {"yes": 30, "no": 50}},
        "split": {"documents": 9, "documents_unread": 1, "documents_held_out": 4, "rows_without_document": 2},
        "cut_prompts": 3,
        "overlap": {"items": 40, "passages": 1, "questions": 0, "rows": ["3"]},
        "warnings": ["1 empty test rows left out"],
    }
    changes = {"perplexity": gain(0.2, 0.1, 0.3), "requests followed": gain(-4.2, -9.0, 1.0)}
    return {
        "format": "katsuo-results-1",
        "name": "bridges",
        "verdict": "+2.0 macro F1 over zero-shot (95 % 0.5 to 3.5, n = 40)",
        "warnings": [],
        "metric": "macro_f1",
        "systems": {key: {"name": f"name of {key}", "meaning": f"meaning of {key}"} for key in (*keys, "supervised")},
        "sets": {"bridges": told},
        "mean": {"scores": {key: one["mean"] for key, one in scores.items()}, "gains": gains},
        "forgetting": {
            "zero-shot": {"perplexity": 18.0, "requests followed": 50.0},
            "sets": {"bridges": {"katsuo": {"perplexity": 22.0, "requests followed": 45.8, "changes": changes}}},
            "items": {"perplexity": 12, "requests followed": 24},
            "mean": {},
        },
        "cost": [
            {"stage": "bridges/split", "seconds": 6.0, "cpu_seconds": 3.0, "peak_bytes": 90_000_000, "command": []},
            {
                "stage": "bridges/adapt",
                "seconds": 90.0,
                "cpu_seconds": None,
                "peak_bytes": None,
                "amount": 4096,
                "unit": "tokens",
            },
            {"stage": "bridges/supervised", "left_out": "there are no labelled rows"},
        ],
        "seeds": [0, 7],
        "runs": {"bridges": {"katsuo": "runs/katsuo"}},
        "adapters": {"bridges": {"katsuo": "adapters/katsuo"}},
        "recipe": "model: small\n",
        "machines": ["2 cores of a processor, Linux x86_64, Python 3.11.7"],
    }
