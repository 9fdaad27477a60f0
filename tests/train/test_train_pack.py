"""Packing: several examples in one row lose and learn as each alone would."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import numpy
import peft
import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM

from katsuo.train import loss as loss_module
from katsuo.train.encode import Encoded
from katsuo.train.loss import held_out_loss, summed_loss
from katsuo.train.pack import ATTENTION, attend, collate, cut, split
from katsuo.train.quick.rotary import quicker_rotary
from katsuo.train.quick.top import quicker_top
from katsuo.train.upkeep.trial import can_pack, take_attention

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
KINDS = ("llama", "qwen2", "mistral", "gemma2", "gemma3_text", "gpt_neox", "phi3", "deepseek_v3")


def load(folder, attention=ATTENTION):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)


def some_examples():
    random = numpy.random.default_rng(5)
    return [
        Encoded(random.integers(3, 260, size=length).astype(numpy.int32), prompt_length)
        for length, prompt_length in ((23, 9), (7, 1), (40, 35))
    ]


def loss_alone(model, example):
    """The library's own way: one example, its own attention, -100 where nothing is learned."""
    ids = torch.from_numpy(example.tokens.astype(numpy.int64))[None]
    labels = ids.clone()
    labels[:, : example.prompt_length] = -100
    learned = len(example.tokens) - example.prompt_length
    return model(input_ids=ids, labels=labels).loss * learned, learned


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_packed_row_is_the_mean_of_the_single_ones(small_model, kind):
    ours, theirs = load(small_model(kind)), load(small_model(kind), "eager")
    examples = some_examples()
    packed = summed_loss(ours, collate(examples), is_packed=True)
    alone = [loss_alone(theirs, example) for example in examples]
    assert packed.item() == pytest.approx(sum(loss.item() for loss, _ in alone), rel=1e-4)
    mean = held_out_loss(ours, examples, is_packed=True, per_pass=2)
    assert mean == pytest.approx(packed.item() / sum(count for _, count in alone), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_of_a_packed_row_are_those_of_the_single_ones(small_model, kind):
    ours, theirs = load(small_model(kind)), load(small_model(kind), "eager")
    examples = some_examples()
    summed_loss(ours, collate(examples), is_packed=True).backward()
    for example in examples:
        loss_alone(theirs, example)[0].backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine.grad, other.grad, atol=2e-3 * float(other.grad.abs().max()) + 1e-6), name


def test_an_example_does_not_see_the_one_before_it(small_model):
    model = load(small_model("llama")).eval()
    first, second, third = some_examples()
    with torch.no_grad():
        one = summed_loss(model, collate([first, third]), is_packed=True) - summed_loss(
            model, collate([first]), is_packed=True
        )
        other = summed_loss(model, collate([second, third]), is_packed=True) - summed_loss(
            model, collate([second]), is_packed=True
        )
    assert one.item() == pytest.approx(other.item(), abs=1e-3)


def test_rows_that_are_not_packed_have_the_same_loss(small_model):
    model, batch = load(small_model("gemma3_text")), collate(some_examples())
    packed, single = (summed_loss(model, batch, is_packed=flag).item() for flag in (True, False))
    assert packed == pytest.approx(single, rel=1e-5)
    assert [part["labels"].numel() for part in split(batch)] == [14, 6, 5]


@pytest.mark.parametrize(("most", "lengths"), [(1, [[23], [7], [40]]), (30, [[23, 7], [40]]), (70, [[23, 7, 40]])])
def test_a_row_is_cut_between_examples_and_its_parts_lose_and_learn_as_the_whole(small_model, most, lengths):
    whole, model = load(small_model("llama")), load(small_model("llama"))
    batch = collate(some_examples())
    parts = cut(batch, most)
    assert [part["cu_seq_lens_q"].diff().tolist() for part in parts] == lengths
    assert torch.equal(torch.cat([part["shift_labels"] for part in parts]), batch["shift_labels"])
    summed_loss(whole, batch, is_packed=True).backward()
    for part in parts:
        summed_loss(model, part, is_packed=True).backward()
    for (name, mine), other in zip(model.named_parameters(), whole.parameters(), strict=True):
        assert torch.allclose(mine.grad, other.grad, rtol=1e-3, atol=1e-4), name


def test_a_row_is_cut_into_as_few_rows_as_can_be_and_these_are_as_equal_as_can_be():
    lengths = [5, 6, 7, 8, 9, 10, 11]
    batch = collate([Encoded(numpy.arange(length, dtype=numpy.int32), 1) for length in lengths])
    told = {most: [part["input_ids"].numel() for part in cut(batch, most)] for most in (4, 11, 30, 40, 55, 56)}
    assert told[56] == [56]
    assert told[55] == [26, 30]
    assert told[40] == [26, 30]
    assert told[30] == [26, 30]
    assert told[11] == [11, 7, 8, 9, 10, 11]
    assert told[4] == lengths


def test_a_model_with_a_memory_of_its_own_is_not_packed(small_model):
    assert can_pack(load(small_model("llama")), 264)
    assert not can_pack(load(small_model("lfm2")), 264)


def test_an_attention_that_looks_across_examples_is_noticed(small_model):
    def leaky(*args, **told):
        return attend(*args, **{**told, "cu_seq_lens_q": None})

    AttentionInterface.register("leaky", leaky)
    assert not can_pack(load(small_model("llama"), "leaky"), 264)


def test_a_model_whose_attention_has_parts_of_its_own_keeps_it(small_model):
    model, theirs = (load(small_model("gpt_oss"), "eager") for _ in range(2))
    assert not take_attention(model, 264)
    assert model.config._attn_implementation == "eager"
    examples = some_examples()
    alone = sum(loss_alone(theirs, example)[0].item() for example in examples)
    assert summed_loss(model, collate(examples), is_packed=False).item() == pytest.approx(alone, rel=1e-4)
    for kind in KINDS:
        assert take_attention(load(small_model(kind), "eager"), 264)


def test_adapted_layers_compute_where_the_model_was_moved_to(small_model):
    from katsuo.train.quick.adapted import quicken_adapted

    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(load(small_model("llama"), "sdpa").bfloat16(), config)
    # No other device need be here: a tensor of the device `meta` has a shape and no numbers.
    quicken_adapted(model, device=torch.device("meta"))
    assert model.to("meta")(input_ids=torch.zeros(1, 5, dtype=torch.long, device="meta")).logits.shape == (1, 5, 264)


def test_adapted_layers_that_were_quickened_give_the_same_loss_and_gradients(small_model):
    from katsuo.train.quick.adapted import quicken_adapted

    folder = small_model("qwen2")  # the first call makes it, and draws random numbers

    def adapted():
        config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        model = load(folder)
        torch.manual_seed(1)
        model = peft.get_peft_model(model, config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        return model

    plain, quick = adapted(), adapted()
    assert quicken_adapted(quick) == 14
    losses = [summed_loss(model, collate(some_examples()), is_packed=True) for model in (plain, quick)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for loss in losses:
        loss.backward()
    for (name, mine), other in zip(quick.named_parameters(), plain.parameters(), strict=True):
        if other.requires_grad:
            assert torch.allclose(mine.grad, other.grad, rtol=1e-3, atol=1e-4), name
    with plain.disable_adapter(), quick.disable_adapter():
        losses = [summed_loss(model, collate(some_examples()), is_packed=True).item() for model in (plain, quick)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("packed_bytes", [0, 50_000, 10**9])
def test_packed_weights_give_the_same_loss_and_gradients_and_take_no_more_than_they_may(small_model, packed_bytes):
    from katsuo.engines.hf.pack import is_packing_available
    from katsuo.train.quick.adapted import quicken_adapted

    if not is_packing_available():
        pytest.skip("oneDNN has no bfloat16 on this processor")

    folder = small_model("llama")  # the first call makes it, and draws random numbers

    def adapted(packed_bytes):
        torch.manual_seed(1)
        model = load(folder).to(torch.bfloat16)
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        assert quicken_adapted(model, packed_bytes=packed_bytes) == 14
        loss = summed_loss(model, collate(some_examples()), is_packed=True)
        loss.backward()
        layers = [module for module in model.modules() if isinstance(module, peft.tuners.lora.Linear)]
        sizes = [layer.base_layer.weight.nbytes for layer in layers if layer._katsuo_packed is not None]
        return loss.item(), [weight.grad for weight in model.parameters() if weight.requires_grad], sizes

    plain_loss, plain_gradients, none = adapted(0)
    loss, gradients, sizes = adapted(packed_bytes)
    assert not none
    assert sum(sizes) <= packed_bytes
    assert {0: len(sizes) == 0, 50_000: 0 < len(sizes) < 14, 10**9: len(sizes) == 14}[packed_bytes]
    assert loss == pytest.approx(plain_loss, rel=1e-4)
    for mine, other in zip(gradients, plain_gradients, strict=True):
        assert torch.allclose(mine, other, rtol=0.02, atol=0.02 * float(other.abs().max()) + 1e-6)


@pytest.mark.parametrize("longest_held", [0, 512])
def test_attention_that_is_written_out_gives_what_torch_gives(monkeypatch, longest_held):
    from katsuo.train.quick import attention

    monkeypatch.setattr(attention, "_LONGEST_HELD", longest_held)
    monkeypatch.setattr(attention, "_is_written_out", lambda dtype: dtype == torch.bfloat16)
    torch.manual_seed(2)
    starts = (0, 33, 40, 101)
    query, key, value = (torch.randn(1, 101, heads, 16).bfloat16().transpose(1, 2) for heads in (6, 2, 2))
    weight = torch.randn(1, 101, 6, 16)

    def torchs(query, key, value):
        parts = ([tensor[:, :, start:stop] for tensor in (query, key, value)] for start, stop in pairwise(starts))
        return torch.cat([attention.attend_plain(part, 0.3) for part in parts], dim=2).transpose(1, 2)

    def ours(*tensors):
        return attention.attend_written_out(*tensors, starts, 0.3)

    found = []
    for attend_rows, dtype in ((torchs, torch.float32), (ours, torch.float32), (ours, torch.bfloat16)):
        own = [tensor.detach().to(dtype).requires_grad_() for tensor in (query, key, value)]
        out = attend_rows(*own)
        (out.float() * weight).sum().backward()
        found.append([out, *(tensor.grad for tensor in own)])
    exact, wide, rounded = found
    for one, other in zip(wide, exact, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()
    for one, other in zip(rounded, exact, strict=True):
        assert (one.float() - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3_text"])
def test_norms_that_were_quickened_give_the_same_loss_and_gradients(small_model, kind, monkeypatch):
    from katsuo.train.quick import norm
    from katsuo.train.quick.norm import quicken_norms

    monkeypatch.setattr(norm, "_ROWS_AT_ONCE", 16)
    models = []
    for is_quick in (False, True):
        model = load(small_model(kind)).requires_grad_(False)
        model.get_input_embeddings().weight.requires_grad_(True)
        # Gemma's norms add one to their weights and are left alone.
        assert not is_quick or quicken_norms(model) == (0 if kind == "gemma3_text" else 5)
        loss = summed_loss(model, collate(some_examples()), is_packed=True)
        loss.backward()
        models.append((loss.item(), model.get_input_embeddings().weight.grad))
    assert models[0][0] == pytest.approx(models[1][0], rel=1e-5)
    assert torch.allclose(models[0][1], models[1][1], rtol=1e-3, atol=1e-4)


def test_norms_that_are_trained_are_left_alone(small_model):
    from katsuo.train.quick.norm import quicken_norms

    assert quicken_norms(load(small_model("llama"))) == 0


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3_text", "gpt_neox", "phi3"])
def test_positions_that_were_quickened_give_the_same_loss_and_gradients(small_model, kind):
    model = load(small_model(kind)).requires_grad_(False)
    weight = model.get_input_embeddings().weight.requires_grad_(True)
    found = []
    for quickly in (nullcontext(0), quicker_rotary(model)):
        weight.grad = None
        with quickly as count:
            loss = summed_loss(model, collate(some_examples()), is_packed=True)
            loss.backward()
        found.append((count, loss.item(), weight.grad))
    assert [one[0] for one in found] == [0, 1]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    assert torch.allclose(found[0][2], found[1][2], rtol=1e-3, atol=1e-4)


def test_positions_are_turned_as_before_where_the_model_turns_otherwise_and_afterwards(small_model, monkeypatch):
    from transformers.models.llama import modeling_llama

    model = load(small_model("llama"))
    usual = modeling_llama.apply_rotary_pos_emb

    def interrupted():
        with quicker_rotary(model):
            assert modeling_llama.apply_rotary_pos_emb is not usual
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert modeling_llama.apply_rotary_pos_emb is usual

    def otherwise(q, k, cos, sin, unsqueeze_dim=1):
        return usual(q, k, cos, -sin, unsqueeze_dim)

    for other in (otherwise, lambda q, k: (q, k)):
        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", other)
        with quicker_rotary(model) as count:
            assert count == 0
            assert modeling_llama.apply_rotary_pos_emb is other


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize(
    ("kind", "is_quick"),
    [("llama", True), ("qwen2", True), ("gemma2", True), ("gemma3_text", True), ("phi3", False), ("gpt_neox", False)],
)
def test_a_top_layer_that_was_quickened_gives_the_same_loss_and_gradients(small_model, kind, is_quick, is_checkpointed):
    model = load(small_model(kind)).train()
    if is_checkpointed:
        model.activation_checkpointing_enable()
    batch, found = collate(some_examples()), []
    for quickly in (nullcontext(False), quicker_top(model)):
        model.zero_grad()
        with quickly as told:
            loss = summed_loss(model, batch, is_packed=True)
            loss.backward()
        found.append((told, loss.item(), [weight.grad.clone() for weight in model.parameters()]))
    assert [told for told, *_ in found] == [False, is_quick]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    for one, other in zip(found[0][2], found[1][2], strict=True):
        assert torch.allclose(one, other, atol=1e-4 * float(other.abs().max()) + 1e-6)


def test_a_top_layer_computes_where_something_is_learned_and_is_put_back(small_model):
    model = load(small_model("llama"))
    layer, batch = model.model.layers[-1], collate(some_examples())
    rows = []
    layer.mlp.gate_proj.register_forward_hook(lambda module, given, out: rows.append(out.shape[1]))
    own = layer.self_attn.q_proj.forward = lambda hidden: torch.nn.functional.linear(
        hidden, layer.self_attn.q_proj.weight
    )

    def interrupted():
        with quicker_top(model) as is_quick:
            assert is_quick
            assert layer.self_attn.q_proj.forward is not own
            rows.clear()
            summed_loss(model, batch, is_packed=True)
            model(input_ids=batch["input_ids"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert rows == [len(batch["labels"]), batch["input_ids"].shape[1]]
    assert layer.self_attn.q_proj.forward is own
    assert "forward" not in layer.mlp.__dict__
    assert not model._forward_pre_hooks
    summed_loss(model, batch, is_packed=True)
    assert rows[2:] == [batch["input_ids"].shape[1]]


def test_a_top_layer_whose_positions_look_at_each_other_is_left_alone(small_model, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    usual = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, hidden: usual(self, hidden).cumsum(dim=1))
    model, batch = load(small_model("llama")), collate(some_examples())
    expected = summed_loss(model, batch, is_packed=True).item()
    with quicker_top(model) as is_quick:
        assert not is_quick
        assert summed_loss(model, batch, is_packed=True).item() == expected


def test_positions_of_another_number_format_are_turned_as_before(small_model):
    from transformers.models.llama import modeling_llama

    query, key = torch.randn(1, 3, 5, 8).bfloat16(), torch.randn(1, 1, 5, 8).bfloat16()
    angles = torch.randn(1, 5, 8)
    usual = modeling_llama.apply_rotary_pos_emb(query, key, angles.cos(), angles.sin())
    with quicker_rotary(load(small_model("llama"))):
        turned = modeling_llama.apply_rotary_pos_emb(query, key, angles.cos(), angles.sin())
    assert [one.dtype for one in turned] == [torch.float32] * 2
    assert all(torch.equal(one, other) for one, other in zip(turned, usual, strict=True))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("elements", [1, 3 * 50, 1 << 20])
def test_the_loss_and_its_gradient_are_those_of_torch(monkeypatch, dtype, close, elements):
    monkeypatch.setitem(loss_module._ELEMENTS_AT_ONCE, "cpu", elements)
    torch.manual_seed(2)
    values, labels = (torch.randn(7, 50) * 4).to(dtype), torch.randint(50, (7,))
    mine, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    loss = loss_module._CrossEntropy.apply(mine, labels)
    expected = torch.nn.functional.cross_entropy(theirs.float(), labels, reduction="sum")
    (loss * 0.25).backward()
    (expected * 0.25).backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert mine.grad.dtype == dtype
    assert torch.allclose(mine.grad, theirs.grad, rtol=close, atol=close / 10)


def test_small_shares_survive_in_float16_until_the_loss_is_scaled_up():
    logits = torch.tensor([[0.0, -18.0]], dtype=torch.float16, requires_grad=True)
    (loss_module._CrossEntropy.apply(logits, torch.tensor([0])) * 2**14).backward()
    assert logits.grad[0, 1].item() == pytest.approx(2**14 * numpy.exp(-18.0), rel=0.01)
