"""Score given answers: how likely a model finds each after its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy
import torch
from jinja2 import TemplateError
from transformers import PreTrainedModel

from katsuo.engines.base import Choices, Scores
from katsuo.engines.hf.load import LoadedModel
from katsuo.engines.hf.masks import FULL, SLIDING, layer_kinds, masks_of
from katsuo.engines.hf.memory import Tokens
from katsuo.engines.hf.numbers import no_numbers
from katsuo.engines.hf.prompts import closing_tokens, encode, encode_plain, end_token
from katsuo.engines.hf.tree import Path, Tree, grow, part

LARGEST_TREE = 1024
"""Nodes of a tree; attention looks at all pairs of them, so larger ones cost more than they share."""
PASS_TOKENS = {"cpu": 512}
PASS_TOKENS_ELSEWHERE = 16_384
"""Tokens of one pass, padding included: a processor is busy with a few hundred, a GPU wants many."""
LARGEST_DIFFERENCE = 0.05
"""Of the logits' own size, between a tree and the same sequences alone; sixteen-bit arithmetic stays far below it."""


class AnswerScorer:
    """Score the answers to prompts as they are written: encoded like a generation's prompt and a training's answer."""

    def __init__(self, loaded: LoadedModel, batch_size: int) -> None:
        self._loaded = loaded
        self.scorer = Scorer(loaded.model, batch_size)
        self._ends: dict[bool, list[int]] = {}

    def score(self, questions: Sequence[Choices]) -> list[Scores]:
        """Give one `Scores` per question, in order."""
        paths: list[Path] = []
        outcomes: list[Scores | list[Path]] = []
        for question in questions:
            outcome = self._encode(question, first=len(paths))
            outcomes.append(outcome)
            paths += outcome if isinstance(outcome, list) else []
        totals = self.scorer.score(paths, len(paths)) if paths else []
        return [
            outcome
            if isinstance(outcome, Scores)
            else Scores(tuple(totals[path.place] for path in outcome), tuple(len(p.tokens) - p.start for p in outcome))
            for outcome in outcomes
        ]

    def _encode(self, question: Choices, first: int) -> Scores | list[Path]:
        """Give a path for every answer, or the scores that say why there can be none."""
        tokenizer, ends = self._loaded.tokenizer, self._loaded.end_tokens
        try:
            prompt = encode(tokenizer, question.prompt, end_tokens=ends).tokens
        except TemplateError as error:
            return Scores(finish="error", error=f"the model's chat template refuses the prompt: {error}")
        if not len(prompt):
            # Something has to stand before the first token for the model to say how likely that is.
            prompt = numpy.array([end_token(tokenizer, end_tokens=ends)], dtype=numpy.int64)
        tail = self._end(is_chat=bool(question.prompt.messages)) if question.has_end else []
        paths: list[Path] = []
        for place, answer in enumerate(encode_plain(tokenizer, question.answers), first):
            if not answer:
                return Scores(finish="error", error="an answer is empty")
            if len(prompt) + len(answer) + len(tail) > self._loaded.context_tokens:
                return Scores(finish="too_long")
            paths.append(Path(numpy.concatenate([prompt, [*answer, *tail]]).astype(numpy.int64), len(prompt), place))
        return paths or Scores(finish="error", error="there is no answer to score")

    def _end(self, *, is_chat: bool) -> list[int]:
        if is_chat not in self._ends:
            loaded = self._loaded
            self._ends[is_chat] = closing_tokens(loaded.tokenizer, end_tokens=loaded.end_tokens, is_chat=is_chat)
        return self._ends[is_chat]


class Scorer:
    """
    Give the log-probability of the scored part of every path.

    Where the model attends to keys and values in every layer, paths that begin alike are one tree, and each shared
    token is read once. Any other model reads every path by itself.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size
        self._pass_tokens = PASS_TOKENS.get(model.device.type, PASS_TOKENS_ELSEWHERE)
        self.tokens_read = 0
        self._head = Head(model)
        self._try_head()
        self.is_sharing = layer_kinds(model) <= {FULL, SLIDING} and self._trees_agree()

    @torch.inference_mode()
    def score(self, paths: Sequence[Path], count: int) -> list[float]:
        """Give the sum of the log-probabilities for each of `count` places."""
        totals = torch.zeros(count, dtype=torch.float64)
        if self.is_sharing:
            trees = sorted((grow(group) for group in part(paths, LARGEST_TREE)), key=len)
            for batch in self._batches(trees):
                logits = self._read_trees(batch)
                self._add(totals, logits, [tree.marks - (len(tree) - logits.shape[1], 0, 0) for tree in batch])
        else:
            for rows in self._batches(sorted(paths, key=lambda path: len(path.tokens))):
                self._add(totals, self._read_alone(rows), [_marks(path) for path in rows])
        return totals.tolist()

    def _batches(self, things: Sequence[Any]) -> Iterator[list[Any]]:
        """Give things of similar size together, as many as one pass takes; the largest come first."""
        batch: list[Any] = []
        for thing in reversed(things):
            if batch and (len(batch) >= self._batch_size or _length(batch[0]) * (len(batch) + 1) > self._pass_tokens):
                yield batch
                batch = []
            batch.append(thing)
        if batch:
            yield batch

    def _add(self, totals: torch.Tensor, logits: torch.Tensor, marks: Sequence[Tokens]) -> None:
        """Add each mark's log-probability to its place; a mark's node is counted from the first logits of its row."""
        whole = logits.float()
        norms = whole.logsumexp(-1)
        for row, marked in enumerate(torch.from_numpy(one) for one in marks):
            nodes, tokens = marked[:, 0].to(whole.device), marked[:, 1].to(whole.device)
            found = self._head.exact(row, nodes, tokens)
            values = (whole[row, nodes, tokens] if found is None else found) - norms[row, nodes]
            if values.isnan().any():
                raise no_numbers()
            totals.index_add_(0, marked[:, 2], values.cpu().double())

    def _read_trees(self, trees: Sequence[Tree]) -> torch.Tensor:
        """Read trees padded on the left; give the logits of the last nodes, as many as the neediest row has to give."""
        width = max(len(tree) for tree in trees)
        tokens = numpy.zeros((len(trees), width), dtype=numpy.int64)
        depths = numpy.zeros_like(tokens)
        sees = numpy.zeros((len(trees), width, width), dtype=bool)
        # A padding token sees itself: a row that sees nothing gives no number.
        sees[:, range(width), range(width)] = True
        for row, tree in enumerate(trees):
            start = width - len(tree)
            tokens[row, start:], depths[row, start:], sees[row, start:, start:] = tree.tokens, tree.depths, tree.sees
        device = self._model.device
        positions = torch.from_numpy(depths).to(device)
        is_line = len(trees) == 1 and bool((numpy.diff(trees[0].depths) == 1).all())
        masks = None if is_line else masks_of(self._model, torch.from_numpy(sees).to(device), positions)
        self.tokens_read += sum(len(tree) for tree in trees)
        model: Any = self._model
        logits: torch.Tensor = model(
            input_ids=torch.from_numpy(tokens).to(device),
            position_ids=positions,
            attention_mask=masks,
            use_cache=False,
            logits_to_keep=max(tree.scoring for tree in trees),
        ).logits
        return logits

    def _read_alone(self, paths: Sequence[Path]) -> torch.Tensor:
        """Read whole sequences, padded on the right: what comes after a token can not change it."""
        width = max(len(path.tokens) for path in paths)
        tokens = numpy.zeros((len(paths), width), dtype=numpy.int64)
        mask = numpy.zeros_like(tokens)
        for row, path in enumerate(paths):
            tokens[row, : len(path.tokens)] = path.tokens
            mask[row, : len(path.tokens)] = 1
        self.tokens_read += int(mask.sum())
        read, held = (torch.from_numpy(array).to(self._model.device) for array in (tokens, mask))
        model: Any = self._model
        logits: torch.Tensor = model(input_ids=read, attention_mask=held, use_cache=False).logits
        return logits

    @torch.inference_mode()
    def _try_head(self) -> None:
        """Leave the head alone where the model's logits are not its product: some are scaled or capped after it."""
        upper = self._model.config.get_text_config().vocab_size
        path = Path(numpy.arange(5, 14, dtype=numpy.int64) * 7 % upper, 1, 0)
        logits = self._read_alone([path])[0].float()
        self.tokens_read = 0
        nodes = torch.arange(len(logits), device=logits.device).repeat_interleave(64)
        tokens = torch.arange(len(nodes), device=logits.device) * 31 % min(upper, logits.shape[-1])
        found, expected = self._head.exact(0, nodes, tokens), logits[nodes, tokens]
        if found is not None and (found - expected).norm() > LARGEST_DIFFERENCE * expected.norm():
            self._head.leave()

    @torch.inference_mode()
    def _trees_agree(self) -> bool:
        """Compare a tree of three answers with the same sequences alone."""
        upper = self._model.config.get_text_config().vocab_size
        prompt = numpy.arange(5, 14, dtype=numpy.int64) * 7 % upper
        # Branches that differ over many tokens: so a model shows that looks across them or counts positions by place.
        answers = [[3, 11, *(numpy.arange(40 - 5 * k) * (11 + 2 * k) + k)] for k in range(2)]
        answers += [[6, *(numpy.arange(33) * 5)]]
        paths = [Path(numpy.append(prompt, numpy.array(answer) % upper), len(prompt), 0) for answer in answers]
        tree, short = grow(paths), grow([Path(prompt[:6], 4, 0)])
        try:
            ours = self._read_trees([tree, short])[0].float()
        except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
            # Whatever this model needs instead, it does not take a tree.
            return False
        finally:
            self.tokens_read = 0
        for path in paths:
            theirs = self._read_alone([path])[0].float()
            for node, token, _ in tree.marks:
                step = tree.depths[node] + 1
                if step < len(path.tokens) and path.tokens[step] == token and _is_on(tree, node, path):
                    expected, found = theirs[step - 1], ours[node - len(tree) + ours.shape[0]]
                    if (found - expected).norm() > LARGEST_DIFFERENCE * expected.norm():
                        return False
        self.tokens_read = 0
        return True


class Head:
    """
    The model's last layer, watched, so that the logits of a few tokens can be computed in full precision.

    In bfloat16 a logit of 16 has a neighbour at 16.125: answers would often tie, and a tie is no ranking.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._hidden = torch.empty(0)
        self._weight = _weight_of(model, head)
        if self._weight is not None:
            head.register_forward_pre_hook(self._keep)

    def exact(self, row: int, nodes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor | None:
        """Give the logits of `tokens` at `nodes` of a row of the last pass; None where the layer cannot be read."""
        if self._weight is None:
            return None
        return (self._hidden[row, nodes].float() * self._weight[tokens].float()).sum(-1)

    def leave(self) -> None:
        """Read the layer no longer."""
        self._weight = None

    def _keep(self, _: Any, given: tuple[torch.Tensor, ...]) -> None:
        self._hidden = given[0]


def _weight_of(model: PreTrainedModel, head: Any) -> torch.Tensor | None:
    """Give the last layer's weight where a logit is a plain product with it."""
    config: Any = model.config.get_text_config()
    changed = [getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")]
    if any(value not in (None, 1, 1.0) for value in changed) or getattr(head, "bias", None) is not None:
        return None
    weight = head.weight
    if weight.is_meta:
        # The layer was packed for the processor's matrix units; a tied one still has its numbers at the other end.
        embeddings: Any = model.get_input_embeddings()
        weight = embeddings.weight if getattr(config, "tie_word_embeddings", False) else head.packed.to_dense()
    usable: bool = weight.is_floating_point() and not weight.is_meta
    return weight if usable else None


def _is_on(tree: Tree, node: int, path: Path) -> bool:
    """Say whether `node` lies on `path`."""
    way = numpy.flatnonzero(tree.sees[node])
    way = way[numpy.argsort(tree.depths[way])]
    return bool((tree.tokens[way] == path.tokens[: len(way)]).all())


def _marks(path: Path) -> Tokens:
    steps = numpy.arange(path.start, len(path.tokens))
    return numpy.stack([steps - 1, path.tokens[steps], numpy.full(len(steps), path.place)], axis=1)


def _length(thing: Tree | Path) -> int:
    return len(thing) if isinstance(thing, Tree) else len(thing.tokens)
