"""
Let a task generator learn from what it wrote well: its own pairs that passed every check, beside labelled ones.

    katsuo ctga build --data P3 --per-row 3 -o PAIRS
    katsuo train-generator PAIRS --model smollm2-135m-instruct --recipe examples/katsuo-135m.yaml -o KATSUO-0
    for n in 1 2; do
        python examples/self_training.py --data P3 --pairs PAIRS --model KATSUO-$((n - 1)) --round $n -o OWN-$n
        katsuo train-generator OWN-$n/pairs --model smollm2-135m-instruct --recipe examples/self_training.yaml \
            --from KATSUO-$((n - 1)) -o KATSUO-$n
    done

P3 is a folder of labelled data sets, as docs/ctga.md says; PAIRS are all pairs that were built from it. Passages are
texts of P3 and the licence texts of this machine, so that another machine has some other ones. The generator is asked
for the types whose form it misses most: in the first round without a grammar and warmer than by default, which shows it
what it does well; in the second under the grammar and as by default, which shows it what to write where it goes astray.
Of its questions about spans those stay that it answers the same way twice; of the second round's lists, those whose
options do not say nearly the same. A killed call goes on with the same command (29 and 17 minutes for the two rounds on
two cores).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import katsuo
from katsuo.records import Reason
from katsuo.store import Run
from katsuo.tasks import find_task
from katsuo.tasks.checks import first_failure
from katsuo.tasks.codec import join_pair, parse_pair, render_bonito
from katsuo.tasks.shapes import PLACEHOLDER, find_options
from katsuo.tasks.task_type import Draft
from katsuo.tasks.wordings import label_place
from katsuo.train.read import PairFolder


@dataclass(frozen=True)
class Round:
    """
    Passages and temperature by type, whether under the grammar, and the share of `LABELLED` that comes beside.

    `licences` is how often licence texts come beside those of `TEXTS`.
    """

    asked: dict[str, tuple[int, float]]
    grammar: bool
    labelled: float
    seed: int
    licences: int = 4


ROUNDS = {
    1: Round(
        {
            "mcqa": (560, 0.9), "exqa": (1000, 0.7), "text_gen": (200, 0.9), "sent_comp": (200, 0.9),
            "coref": (200, 0.9), "paraphrase": (130, 0.9), "paraphrase_id": (130, 0.9), "wsd": (130, 0.9),
            "te": (80, 0.7),
        },
        grammar=False, labelled=1, seed=0,
    ),
    2: Round(
        {
            "mcqa": (520, 0.5), "exqa": (520, 0.5), "sent_comp": (110, 0.5), "text_gen": (90, 0.5),
            "coref": (90, 0.5), "paraphrase": (80, 0.5), "paraphrase_id": (110, 0.5), "wsd": (110, 0.5),
            "ynqa": (90, 0.5), "summarization": (60, 0.5), "te": (60, 0.5),
        },
        grammar=True, labelled=0.5, seed=100,
    ),
}  # fmt: skip
MOST_OWN = {"paraphrase generation": 90}
LABELLED = {
    "exqa": 220, "ynqa": 260, "nli": 330, "mcqa": 120, "qg": 120, "qa": 120, "sentiment": 90, "summarization": 90,
    "topic_class": 110, "wsd": 80, "coref": 80, "paraphrase_id": 80, "te": 120,
    "text_gen": 40, "sent_comp": 60, "paraphrase": 50,
}  # fmt: skip
"""Pairs of labelled data by type, so that nothing is forgotten."""
TEXTS = {
    "squad": ("context", 4), "super_glue__boolq": ("passage", 4), "xsum": ("document", 3),
    "cnn_dailymail__3.0.0": ("article", 1), "imdb": ("text", 2), "dbpedia_14": ("content", 1), "duorc": ("plot", 1),
}  # fmt: skip
"""Where passages come from: the column, and how often beside the others."""
LICENCES = (
    "/usr/share/common-licenses/*",
    "/usr/share/doc/*/copyright",
    f"{sys.prefix}/lib/python*/site-packages/*.dist-info/**/LICEN*",
)
LONGEST = 1900
"""Characters of a labelled pair with its passage."""
ALIKE = 0.8
"""Two options say nearly the same from this share of common words on."""
_COLUMNS = ("input", "output", "task_type", "dataset", "config", "context")


def main() -> None:
    """Draw passages, ask about them, and write the pairs that are kept with those of labelled data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--model", default="katsuo-135m")
    parser.add_argument("--round", type=int, choices=list(ROUNDS), default=1)
    parser.add_argument("--share", type=float, default=1.0, help="ask about this share of the passages, to try it")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    this = ROUNDS[options.round]
    write_passages(options.data, options.output / "passages", this, share=options.share)
    for short, (_, temperature) in this.asked.items():
        run = katsuo.generate(
            options.output / "passages" / f"{short}.jsonl",
            short,
            options.output / "runs" / short,
            engine="hf",
            model=options.model,
            sampling__grammar=this.grammar,
            sampling__temperature=temperature,
            checks__readings=1 if short == "exqa" else 0,
        )
        print(f"{short}: {run.summary().kept} of {run.summary().prompts} kept", flush=True)
    write_pairs(options.output / "runs", options.pairs, options.output / "pairs", this)


def write_passages(data: Path, out: Path, this: Round, *, share: float) -> None:
    """Write one JSONL file per type, the same for the same data and licences; leave those that are there."""
    if out.is_dir():
        return
    draw = random.Random(this.seed + 7)
    pools = {name: _texts(data, name, column) for name, (column, _) in TEXTS.items()}
    pools["imdb"] = pools["imdb"][:4000]
    pools["licences"] = list(_licences(draw))
    for pool in pools.values():
        draw.shuffle(pool)
    weights = {name: weight for name, (_, weight) in TEXTS.items()} | {"licences": this.licences}
    names = [name for name, weight in weights.items() if pools[name] for _ in range(weight)]
    taken: Counter[str] = Counter()
    unfinished = out.with_name(f"{out.name}.part")
    unfinished.mkdir(parents=True, exist_ok=True)
    for short, (count, _) in this.asked.items():
        with (unfinished / f"{short}.jsonl").open("w", encoding="utf-8") as file:
            written = 0
            while written < count * share:
                name = draw.choice(names)
                passage = _cut(pools[name][taken[name] % len(pools[name])], draw)
                taken[name] += 1
                if passage:
                    file.write(json.dumps({"text": passage, "from": name}, ensure_ascii=False) + "\n")
                    written += 1
    unfinished.rename(out)


def _texts(data: Path, name: str, column: str) -> list[str]:
    found: list[str] = []
    for path in sorted(data.glob(f"{name}*/train.parquet"), reverse=True):
        own = pq.read_table(path, columns=[column])[column].to_pylist()
        found += dict.fromkeys(text for text in own if text and len(text) > 80)
    return found


def _licences(draw: random.Random) -> Iterator[str]:
    """Join the paragraphs of licence texts to passages of many lengths, those that begin alike once."""
    paths = {path for pattern in LICENCES for path in Path("/").glob(pattern.lstrip("/")) if path.is_file()}
    seen: set[str] = set()
    for path in sorted(paths, key=str):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            print(f"left out: {path} ({error})", file=sys.stderr)
            continue
        joined = ""
        for paragraph in (re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text)):
            letters = len(re.findall(r"[A-Za-z]", paragraph))
            if len(paragraph) < 60 or paragraph[-1] not in ".;" or letters < 0.7 * len(paragraph):
                continue
            joined = f"{joined} {paragraph}".strip()
            if len(joined) > draw.choice([300, 700, 1200]):
                if joined[:80].lower() not in seen:
                    seen.add(joined[:80].lower())
                    yield joined
                joined = ""


def _cut(text: str, draw: random.Random) -> str | None:
    """Cut whole sentences from a text to one of eight lengths; long texts begin anywhere in their first half."""
    text = re.sub(r"\s+", " ", re.sub(r"<br ?/?>", " ", text)).strip()
    limit = draw.choice([150, 250, 400, 600, 800, 1000, 1300, 1450])
    sentences = re.split(r"(?<=[.!?])\s+", text)
    if len(text) > 3000:
        sentences = sentences[draw.randrange(max(1, len(sentences) // 2)) :]
    passage = ""
    for sentence in sentences:
        if passage and len(passage) + len(sentence) > limit:
            break
        passage = f"{passage} {sentence}".strip()
    return passage[:1500] if len(passage) > 60 else None


def write_pairs(runs: Path, labelled: Path, out: Path, this: Round) -> None:
    """Write both kinds of pairs, shuffled, with a manifest that names the sources."""
    draw = random.Random(this.seed + 11)
    rows = list(_own_rows(runs, this, draw))
    by_type = defaultdict(list)
    folder = PairFolder(labelled)
    for path in folder.files:
        for row in pq.read_table(path, columns=list(_COLUMNS)).to_pylist():
            if len(row["input"]) + len(row["output"]) < LONGEST:
                by_type[row["task_type"]].append(row)
    for short, count in LABELLED.items():
        rows += _labelled_rows(short, round(this.labelled * count), by_type[find_task(short).name], draw)
    draw.shuffle(rows)
    (out / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), out / "data/pairs-00000.parquet")
    own = {"source": "katsuo-135m/self", "licence": "generated", "terms": "not stated"}
    told = {"format": folder.manifest()["format"], "sources": [*folder.sources(), own]}
    (out / "manifest.json").write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    print(f"{len(rows)} pairs: {dict(Counter(row['task_type'] for row in rows))}")


def _own_rows(runs: Path, this: Round, draw: random.Random) -> Iterator[dict[str, Any]]:
    for folder in sorted(runs.iterdir()):
        mine, alike = [], 0
        for example in Run(folder).examples():
            passage = example.context.strip()
            instruction = example.instruction.replace(passage, PLACEHOLDER)
            response = example.response.replace(passage, PLACEHOLDER)
            if (instruction + response).count(PLACEHOLDER) != 1:
                print(f"left out: {example.id} ({folder.name}): its passage does not stand in it once", file=sys.stderr)
                continue
            if this.grammar and not are_apart(instruction):
                alike += 1
                continue
            values = (render_bonito(example.task_type, passage), join_pair(instruction, response), example.task_type)
            mine.append(dict(zip(_COLUMNS, (*values, "katsuo-135m", "self", passage), strict=True)))
        if alike:
            print(f"left out: {alike} of {folder.name} with options that say nearly the same", file=sys.stderr)
        draw.shuffle(mine)
        yield from mine[: MOST_OWN.get(mine[0]["task_type"]) if mine else 0]


def are_apart(instruction: str) -> bool:
    """Say whether no two options of an instruction say nearly the same."""
    told = [set(re.findall(r"\w+", option.text.casefold())) for option in find_options(instruction)]
    return all(len(one & other) < ALIKE * len(one | other) for one, other in combinations(told, 2))


def _labelled_rows(short: str, count: int, pool: list[dict[str, Any]], draw: random.Random) -> list[dict[str, Any]]:
    """Draw pairs of one type: labels in balance (names are none), no passage twice, no source more than about half."""
    task = find_task(short)
    draw.shuffle(pool)
    has_choice = len({row["dataset"] for row in pool[:3000]}) > 2
    most = {"ynqa": count // 2, "nli": count // 3}.get(short, round(count * 0.6))
    labels: Counter[int] = Counter()
    sources: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    passages: set[str] = set()
    for row in pool:
        pair = parse_pair(row["output"])
        if isinstance(pair, Reason) or first_failure(Draft(task, row["context"], pair.instruction, pair.response)):
            continue
        if short != "coref" and (place := label_place(task.answer, pair.response)) >= 0:
            if labels[place] >= most:
                continue
            labels[place] += 1
        if has_choice and sources[row["dataset"]] > max(0.45 * count, 30):
            continue
        sources[row["dataset"]] += 1
        if row["context"] in passages:
            continue
        passages.add(row["context"])
        rows.append({name: row[name] or "" for name in _COLUMNS})
        if len(rows) == count:
            break
    return rows


if __name__ == "__main__":
    main()
