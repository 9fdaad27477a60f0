"""
Score the same questions by katsuo and by lm-evaluation-harness, and compare log-likelihoods and macro F1.

python benchmarks/harness_parity.py --data DATA [--suite vitaminc] [--limit 8] [--style chat] [--lm-eval PATH/lm_eval]

The harness counts white space that ends a prompt to the answer. How likely that is, is added here: for a raw prompt as
katsuo scores it, for a chat as transformers does.
Both run in float32 on the processor. `--write FILE` keeps what the harness said, style by style: so was
tests/evaluate/lm_eval.json made.
Does not measure speed: benchmarks/ranking.py does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from katsuo import api
from katsuo.engines import CanScore, Choices
from katsuo.evaluate.judge import judge
from katsuo.evaluate.settings import EvaluateSettings, make_settings
from katsuo.evaluate.suites import Sheet
from katsuo.evaluate.system import find_system, open_examiner
from katsuo.models import locate


def main() -> None:
    """Compare, print, and fail beyond the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--suite", default="vitaminc")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--style", default="chat", choices=["chat", "input-output"])
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--templates", type=int)
    parser.add_argument("--lm-eval", default="lm_eval")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    settings = make_settings(
        {"style": options.style, "limit": options.limit, "templates": options.templates}
        | {"engine_options.dtype": "float32", "engine_options.device": "cpu"}
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sheets = api.read_sheets(options.suite, settings, data=options.data)
        (group,) = api.export_harness(options.model, place / "tasks", sheets, settings)
        ours = judge(find_system(options.model), sheets, place / "ours", settings)
        theirs = by_harness(options, group, place)
        space_of = chat_white_space if options.style == "chat" else white_space
        spaces = space_of(options, sheets[0], settings)
        report(ours, theirs, spaces, sheets[0], options)


def by_harness(options: argparse.Namespace, group: str, place: Path) -> dict[str, Any]:
    """Run the harness's own command line on the exported task; give its samples by task and its scores."""
    command = [options.lm_eval, "--model", "hf", "--include_path", str(place / "tasks"), "--tasks", group]
    command += ["--model_args", f"pretrained={locate(options.model)},dtype=float32", "--device", "cpu"]
    command += ["--batch_size", "4", "--log_samples", "--output_path", str(place / "theirs")]
    command += ["--apply_chat_template"] if options.style == "chat" else []
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(place / "cache")}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    samples = {}
    for path in sorted((place / "theirs").rglob("samples_*.jsonl")):
        name = path.name.removeprefix("samples_").rpartition("_20")[0]
        samples[name] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    (scores,) = (json.loads(path.read_text()) for path in (place / "theirs").rglob("results_*.json"))
    return {"samples": samples, "scores": scores["results"]}


def white_space(options: argparse.Namespace, sheet: Sheet, settings: EvaluateSettings) -> dict[tuple[str, str], float]:
    """Score the line break that ends each raw prompt."""
    examiner, _ = open_examiner(find_system(options.model), settings)
    assert isinstance(examiner.engine, CanScore)
    questions = [question for item in sheet.items for question in sheet.of(item)]
    asked = []
    for question, instruction in zip(questions, examiner.instructions(questions), strict=True):
        prompt = examiner.choices(question, instruction).prompt
        asked.append(Choices(replace(prompt, text=prompt.text.rstrip()), ("\n",), has_end=False))
    scores = zip(questions, examiner.engine.score(asked), strict=True)
    return {(question.template, question.item.id): one.log_probabilities[0] for question, one in scores}


@torch.inference_mode()
def chat_white_space(
    options: argparse.Namespace, sheet: Sheet, settings: EvaluateSettings
) -> dict[tuple[str, str], float]:
    """Score the white space that ends each rendered chat."""
    examiner, _ = open_examiner(find_system(options.model), settings)
    folder = locate(options.model)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        AutoTokenizer.from_pretrained(folder),
    )
    found = {}
    questions = [question for item in sheet.items for question in sheet.of(item)]
    for question, instruction in zip(questions, examiner.instructions(questions), strict=True):
        turns = [{"role": one.role, "content": one.content} for one in examiner.ask(instruction)]
        chat = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        begun, whole = (tokenizer(text, add_special_tokens=False).input_ids for text in (chat.rstrip(), chat))
        likely = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        found[question.template, question.item.id] = sum(
            float(likely[place - 1, whole[place]]) for place in range(len(begun), len(whole))
        )
    return found


def report(
    ours: Any, theirs: dict[str, Any], spaces: dict[tuple[str, str], float], sheet: Sheet, options: argparse.Namespace
) -> None:
    """Print the largest differences; raise beyond the tolerance."""
    name = sheet.suite.name
    kept, macros, worst, worst_f1 = [], {}, 0.0, 0.0
    found = {(one.template, one.item): one for one in ours.predictions(name)}
    for number, template in enumerate(sheet.suite.templates):
        task = f"katsuo_{name}_{number}"
        for sample in theirs["samples"][task]:
            said = [float(answer[0][0]) for answer in sample["resps"]]
            one = found[template.name, sample["doc"]["id"]]
            space = spaces.get((template.name, one.item), 0.0)
            gaps = [abs(a - b - space) for a, b in zip(said, one.log_probabilities, strict=True)]
            worst = max(worst, *gaps)
            kept.append({"template": template.name, "item": one.item, "log_likelihoods": said})
        macro = macros[template.name] = 100 * theirs["scores"][task]["macro_f1,none"]
        worst_f1 = max(worst_f1, abs(macro - ours.scores["sets"][name]["templates"][template.name]["macro_f1"]))
    print(
        f"{len(kept)} questions, {options.style}: log-likelihoods differ by at most {worst:.2e}, macro F1 by {worst_f1}"
    )
    if options.write:
        before = json.loads(options.write.read_text(encoding="utf-8")) if options.write.exists() else {}
        told = {**before, options.style: {"macro_f1": macros, "samples": kept}}
        options.write.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert worst <= options.tolerance, "the log-likelihoods differ"
    assert worst_f1 < 1e-9, "macro F1 differs"


if __name__ == "__main__":
    main()
