"""
Let a task generator learn from what the grammar changes: the same draw without it and under it, the second preferred.

    for n in 3 4; do
        python examples/preference_training.py --data P3 --model KATSUO-$((n - 1)) --round $n \
            --asked ASKED-$n -o KATSUO-$n
    done
    python examples/preference_training.py --data P3 --model KATSUO-4 --round 5 --asked ASKED-5 --again ASKED-4 \
        -o KATSUO-5
    python examples/average_adapters.py KATSUO-4 KATSUO-5 -o KATSUO

P3 is a folder of labelled data sets, as docs/ctga.md says; KATSUO-2 is what examples/self_training.py ends with. Open
passages are asked about without the grammar. Where a check refuses the pair, the same prompt is asked again under it,
with the same seed: both are alike until the grammar steps in. What passes every check then is preferred to what was
refused, by the tokens after they part (direct preference optimisation, Rafailov et al. 2023, arXiv 2305.18290); pairs
that were right at once are learned beside them, so that nothing is forgotten. From round 5 on their labels are level;
with `--again` what was refused in the round before is learned from once more. What ships is half-way between rounds 4
and 5. A killed call goes on after the last task type that was asked for (10 to 20 minutes for a round on two cores) or
begins the training again (15 minutes).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from self_training import Round, are_apart, write_passages
from torch.nn import functional

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.models import locate
from katsuo.pipeline.ask import ask
from katsuo.records import Completion, Passage, Prompt
from katsuo.tasks import TaskType, find_task
from katsuo.tasks.checks import first_failure
from katsuo.tasks.codec import SEPARATOR, Pair, find_codec, parse_pair
from katsuo.tasks.task_type import Draft
from katsuo.train.encode import Encoded, Encoder, limits_of
from katsuo.train.encode import Pair as Text
from katsuo.train.load import load_base
from katsuo.train.loss import row_logits
from katsuo.train.pack import collate
from katsuo.train.quick.adapted import quicken_adapted
from katsuo.train.quick.norm import quicken_norms
from katsuo.train.quick.rotary import quicker_rotary
from katsuo.train.quick.top import quicker_top
from katsuo.train.recipes import LAPTOP
from katsuo.train.upkeep.trial import take_attention
from katsuo.train.weights import lora
from katsuo.train.weights.start import history_of

BASE = "smollm2-135m-instruct"
_FEW = {"sent_comp": 60, "coref": 60, "paraphrase": 50, "paraphrase_id": 50, "te": 50, "ynqa": 90, "nli": 60}
_FEW |= {"qg": 40, "qa": 40, "summarization": 30, "sentiment": 30, "topic_class": 30}
_FEWER = {"te": 40, "qg": 20, "qa": 40, "summarization": 20, "sentiment": 20, "topic_class": 20}
_FEWER = {"sent_comp": 30, "coref": 40, "paraphrase": 30, "paraphrase_id": 40, **_FEWER}
COUNTS = {
    3: {"mcqa": 440, "exqa": 520, "text_gen": 110, "wsd": 110, **_FEW},
    4: {"exqa": 800, "mcqa": 260, "ynqa": 140, "nli": 80, "text_gen": 50, "wsd": 40, **_FEWER},
    5: {"exqa": 520, "ynqa": 220, "mcqa": 130, "nli": 70, "text_gen": 40, "wsd": 40, **_FEWER},
}
"""Passages by round and task type."""
AGAIN = ("exqa", "ynqa", "mcqa")
"""Task types whose refused pairs of the round before are learned from once more."""
LEVEL_FROM = 5
"""The first round whose right pairs are level in their labels."""
SIDES = {"ynqa": ("yes", "no"), "te": ("yes", "no"), "paraphrase_id": ("yes", "no"), "nli": ("yes", "no", "")}
"""By task type what a label may say; an empty one stands for every other label."""
_SAYS = {"true": "yes", "correct": "yes", "always": "yes", "false": "no", "never": "no", "incorrect": "no"}
LICENCES = {3: 4, 4: 10, 5: 10}
"""How often licence texts come beside the others."""
LEARNING_RATE, WARMUP, EPOCHS, BATCH = 1e-4, 5, 2, 8
BETA = 0.2
"""How strongly the trained model may part from the one that it began as, as in the paper."""
BESIDE = 0.2
"""Weight of the loss on pairs that are right."""
RIGHT, HELD_OUT = 160, 24
"""Pairs that were right at once and are learned beside the others; preferences that are held out, a fifth at most."""
WINDOW = 48
"""Tokens that are compared from where the two part: what comes later is not about where the grammar stepped in."""
_AT_ONCE, _ROWS_AT_ONCE, _EVERY = 2, 64, 5
_MORE = 120
"""Characters of an endless completion that are looked at beyond the length of the preferred one."""


def main() -> None:
    """Ask, pair what was refused with what the grammar made of it, and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="katsuo-135m")
    parser.add_argument("--round", type=int, choices=list(COUNTS), default=3)
    parser.add_argument("--share", type=float, default=1.0, help="ask about this share of the passages, to try it")
    parser.add_argument("--asked", type=Path, required=True, help="where what was asked for lies")
    parser.add_argument("--again", type=Path, help="what was asked for in the round before")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    counts = {short: (count, Sampling().temperature) for short, count in COUNTS[options.round].items()}
    seed = 100 * (options.round - 1)
    this = Round(counts, grammar=False, labelled=0, seed=seed, licences=LICENCES[options.round])
    write_passages(options.data, options.asked / "passages", this, share=options.share)
    ask_twice(options.model, this, options.asked)
    rows = list(read_rows(options.asked, counts))
    if options.round >= LEVEL_FROM:
        rows = level(rows)
    if options.again:
        rows += [row for row in read_rows(options.again, AGAIN) if row.fault]
    train(options.model, rows, options.output)


@dataclass(frozen=True)
class Asked:
    """What came of one prompt without the grammar and, where a check refused it, under it."""

    short: str
    prompt: str
    free: str
    is_whole: bool
    fault: str
    forced: str | None = None
    forced_fault: str = ""


def ask_twice(model: str, this: Round, out: Path) -> None:
    """Write what came of every prompt, type by type; leave the types that are there."""
    engine = open_engine("hf", EngineSettings(model, None, EngineOptions()))
    codec = find_codec(engine.info.codec)
    free, forced = (Sampling(max_new_tokens=256, grammar=grammar) for grammar in (False, True))
    (out / "rows").mkdir(exist_ok=True)
    for short in this.asked:
        path = out / "rows" / f"{short}.jsonl"
        if path.exists():
            continue
        task, passages = find_task(short), list(_passages(out / "passages" / f"{short}.jsonl"))
        prompts = list(ask(passages, tasks=(task,), codec=codec, n=1, seed=this.seed))
        first = engine.generate(prompts, free)
        faults = [_fault(task, prompt, one) for prompt, one in zip(prompts, first, strict=True)]
        again = [prompt for prompt, fault in zip(prompts, faults, strict=True) if fault]
        second = dict(
            zip((prompt.id for prompt in again), engine.generate(again, forced) if again else [], strict=True)
        )
        rows = []
        for prompt, one, fault in zip(prompts, first, faults, strict=True):
            other = second.get(prompt.id)
            told = (other.text, _fault(task, prompt, other)) if other else (None, "")
            rows.append(Asked(short, prompt.text, one.text, one.finish == "stop", fault, *told))
        partial = path.with_suffix(".part")
        partial.write_text("".join(json.dumps(row.__dict__, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        partial.rename(path)
        print(f"{short}: {len(again)} of {len(prompts)} refused", flush=True)


def _passages(path: Path) -> Iterator[Passage]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1]):
        told = json.loads(line)
        yield Passage(f"{path.stem}/{number}", told["text"], told["from"], 0, len(told["text"]))


def _fault(task: TaskType, prompt: Prompt, completion: Completion) -> str:
    """Say why a pair is refused; empty where every check lets it pass."""
    pair = parse_pair(completion.text)
    if completion.finish != "stop":
        return f"finished by {completion.finish}"
    if not isinstance(pair, Pair):
        return str(pair)
    return str(first_failure(Draft(task, prompt.passage.text, pair.instruction, pair.response)) or "")


def read_rows(asked: Path, shorts: Iterable[str]) -> Iterator[Asked]:
    """Read what `ask_twice` left."""
    for short in shorts:
        for line in (asked / "rows" / f"{short}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
            yield Asked(**json.loads(line))


def level(rows: Iterable[Asked]) -> list[Asked]:
    """Leave out right pairs that say one thing more often than their task type's rarest."""
    kept: list[Asked] = []
    sides: dict[str, dict[str, list[Asked]]] = {}
    for row in rows:
        label = row.free.partition(SEPARATOR)[2].strip().lower()
        said = _SAYS.get(label, label if label in ("yes", "no") else "")
        if row.fault or row.short not in SIDES:
            kept.append(row)
        elif said in SIDES[row.short]:
            sides.setdefault(row.short, {}).setdefault(said, []).append(row)
    for by_side in sides.values():
        least = min(map(len, by_side.values()))
        kept += [row for group in by_side.values() for row in group[:least]]
    return kept


@dataclass
class Preference:
    """Two completions of one prompt that are the same up to token `parting`."""

    preferred: Encoded
    refused: Encoded
    parting: int
    before: tuple[float, float] = (0.0, 0.0)
    """Log probabilities of both windows by the model that the training begins from."""


def train(start: str, rows: Sequence[Asked], output: Path) -> None:
    """Train an adapter on and write it with its log and manifest; leave one that is there."""
    if (output / "katsuo.json").exists():
        return
    torch.manual_seed(0)
    draw = random.Random(0)
    recipe = LAPTOP.override({"data.max_tokens": 480})
    base = load_base(BASE, recipe)
    model = lora.open_adapter(base.model, locate(start))
    quicken_adapted(model)
    quicken_norms(model)
    take_attention(model, int(model.get_input_embeddings().weight.shape[0]))
    model.train()
    encoder = Encoder(base.tokenizer, end_tokens=base.end_tokens, limits=limits_of(recipe))
    preferences, right, left_out = sort_rows(rows, encoder)
    draw.shuffle(preferences)
    draw.shuffle(right)
    right = right[:RIGHT]
    print(f"{len(preferences)} preferences beside {len(right)} right pairs; left out: {dict(left_out)}", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    with quicker_rotary(model), quicker_top(model), (output / "metrics.jsonl").open("w", encoding="utf-8") as log:
        started = time.monotonic()
        look_back(model, preferences)
        held_out = min(HELD_OUT, len(preferences) // 5)
        watched, learned = preferences[:held_out], [*preferences[held_out:], *right]
        steps = optimise(model, learned, watched, draw, log)
    lora.save_adapter(model, output, base_name=base.public_name)
    probe = torch.from_numpy(right[0].tokens.astype("int64"))[None]
    change = lora.prove_adapter(model, output, probe, start=locate(start))
    source = {"source": "katsuo-135m/self", "licence": "generated", "terms": "not stated", "examples": len(learned)}
    names = ("LEARNING_RATE", "WARMUP", "EPOCHS", "BATCH", "BETA", "BESIDE", "WINDOW")
    manifest = {
        "format": "katsuo-training-1",
        "command": "examples/preference_training.py",
        "codec": "bonito-v1",
        "base_model": base.public_name,
        "base_revision": base.revision,
        "from": history_of(locate(start)),
        "method": "lora",
        "data": {"sources": [source], "preferences": len(learned) - len(right), "held_out": len(watched)},
        "examples": len(learned),
        "rejected": {reason: count for reason, count in left_out.items()},
        "fitted": {"steps": steps, "seconds": round(time.monotonic() - started, 1)},
        "logits_change": change,
        "weights_bytes": (output / lora.WEIGHTS).stat().st_size,
        "recipe": {name.lower(): globals()[name] for name in names},
    }
    (output / "katsuo.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sort_rows(rows: Sequence[Asked], encoder: Encoder) -> tuple[list[Preference], list[Encoded], Counter[str]]:
    """Give preferences, pairs that were right at once, and how many rows are neither, by reason."""
    preferences: list[Preference] = []
    right: list[Encoded] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        kept = row.forced if row.fault else row.free
        if kept is None or row.forced_fault:
            left_out[row.forced_fault or row.fault] += 1
        elif row.short == "mcqa" and not are_apart(kept.partition(SEPARATOR)[0]):
            left_out["options that say nearly the same"] += 1
        elif (whole := _encoded(encoder, row.prompt, kept)) is None:
            left_out["too long"] += 1
        elif not row.fault:
            right.append(whole)
        elif preference := _preference(row, whole, encoder):
            preferences.append(preference)
        else:
            left_out["too long"] += 1
    return preferences, right, left_out


def _preference(row: Asked, preferred: Encoded, encoder: Encoder) -> Preference | None:
    # One that ran on until its tokens ended is compared where the two part, and has no end.
    told = row.free if row.is_whole else row.free[: len(row.forced or "") + _MORE]
    refused = _encoded(encoder, row.prompt, told)
    if refused is None:
        return None
    pairs = enumerate(zip(preferred.tokens.tolist(), refused.tokens.tolist(), strict=False))
    parting = next(place for place, (one, other) in pairs if one != other)
    return Preference(preferred, Encoded(refused.tokens[: parting + WINDOW], refused.prompt_length), parting)


def _encoded(encoder: Encoder, prompt: str, completion: str) -> Encoded | None:
    return next(iter(encoder.encode([Text(prompt, completion)])))


def log_probabilities(model: Any, examples: Sequence[Encoded]) -> tuple[torch.Tensor, ...]:
    """Give the log probability of every token of each completion."""
    batch = collate(examples)
    logits = row_logits(model, batch)
    parts = zip(logits.split(_ROWS_AT_ONCE), batch["labels"].split(_ROWS_AT_ONCE), strict=True)
    found = torch.cat([-functional.cross_entropy(part.float(), labels, reduction="none") for part, labels in parts])
    return found.split([len(example.tokens) - example.prompt_length for example in examples])


def windows(one: Preference, preferred: torch.Tensor, refused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum both completions' log probabilities over `WINDOW` tokens from where they part."""
    start = one.parting - one.preferred.prompt_length
    return preferred[start : start + WINDOW].sum(), refused[start : start + WINDOW].sum()


@torch.no_grad()
def look_back(model: Any, preferences: Sequence[Preference]) -> None:
    """Note what the model says before its training."""
    for one in preferences:
        preferred, refused = windows(one, *log_probabilities(model, [one.preferred, one.refused]))
        one.before = float(preferred), float(refused)


def optimise(
    model: Any, learned: Sequence[Preference | Encoded], watched: Sequence[Preference], draw: random.Random, log: Any
) -> int:
    """Train the adapter and write a line per five updates and epoch; give how many updates it took."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    items, step = list(learned), 0
    steps = math.ceil(len(items) / BATCH) * EPOCHS
    _note(log, step=0, **judge(model, watched))
    for _ in range(EPOCHS):
        draw.shuffle(items)
        for first in range(0, len(items), BATCH):
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / WARMUP) * (1 - step / steps)
            batch = items[first : first + BATCH]
            losses = [
                _backward(model, batch[start : start + _AT_ONCE], len(batch))
                for start in range(0, len(batch), _AT_ONCE)
            ]
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            if step % _EVERY == 0:
                _note(log, step=step, loss=round(sum(losses), 4))
        _note(log, step=step, **judge(model, watched))
    return step


def _backward(model: Any, part: Sequence[Preference | Encoded], count: int) -> float:
    examples: list[Encoded] = []
    for item in part:
        examples += [item.preferred, item.refused] if isinstance(item, Preference) else [item]
    found = iter(log_probabilities(model, examples))
    loss = torch.zeros(())
    for item in part:
        preferred = next(found)
        if isinstance(item, Preference):
            one, other = windows(item, preferred, next(found))
            loss = loss - functional.logsigmoid(BETA * ((one - item.before[0]) - (other - item.before[1])))
        loss = loss - BESIDE * preferred.mean()
    (loss / count).backward()
    return float(loss.detach()) / count


@torch.no_grad()
def judge(model: Any, watched: Sequence[Preference]) -> dict[str, float]:
    """Give how often the model finds the preferred window likelier, and how far training has moved the two apart."""
    right, margin = 0, 0.0
    for one in watched:
        preferred, refused = windows(one, *log_probabilities(model, [one.preferred, one.refused]))
        right += int(preferred > refused)
        margin += float(preferred - refused) - (one.before[0] - one.before[1])
    return {"held_out_right": round(right / len(watched), 4), "held_out_margin": round(margin / len(watched), 4)}


def _note(log: Any, **told: float) -> None:
    log.write(json.dumps(told) + "\n")
    log.flush()
    print(told, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
