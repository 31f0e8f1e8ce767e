"""GPT against Hugging Face's GPT-2 on the same weights, with and without a cache."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import attnviz as av
from attnviz.models import GPT, GPTConfig, generate

SIZES = GPTConfig(
    vocab_size=50, d_model=24, n_layers=3, n_heads=4, d_ff=40, max_len=19, dropout=0.0
)


def pair(seed):
    """Ours and Hugging Face's, with the same random weights."""
    torch.manual_seed(seed)
    ours = GPT(SIZES).eval()
    for p in ours.parameters():
        torch.nn.init.normal_(p, std=0.3)
    settings = GPT2Config(
        vocab_size=50, n_embd=24, n_layer=3, n_head=4, n_inner=40, n_positions=19,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="eager",
        bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(settings).eval()
    theirs.load_state_dict(as_hugging_face(ours), strict=False)
    return ours, theirs


def as_hugging_face(ours):
    """Our weights by Hugging Face's names; its "Conv1D" holds them the other way round."""
    names = {
        "attention_norm": "ln_1",
        "attention.qkv_proj": "attn.c_attn",
        "attention.out_proj": "attn.c_proj",
        "feed_forward_norm": "ln_2",
        "widen": "mlp.c_fc",
        "narrow": "mlp.c_proj",
    }
    state = {
        "transformer.wte.weight": ours.token_embedding.weight,
        "lm_head.weight": ours.token_embedding.weight,
        "transformer.wpe.weight": ours.position_embedding.weight,
        "transformer.ln_f.weight": ours.final_norm.weight,
        "transformer.ln_f.bias": ours.final_norm.bias,
    }
    for i, block in enumerate(ours.blocks):
        for mine, other in names.items():
            for name, p in block.get_submodule(mine).named_parameters():
                p = p.T if p.dim() == 2 else p
                state[f"transformer.h.{i}.{other}.{name}"] = p
    return {name: p.detach().clone() for name, p in state.items()}


def prompts(seed, batch, n):
    return torch.randint(50, (batch, n), generator=torch.Generator().manual_seed(seed))


def left_padded(lengths, n):
    return torch.arange(n) >= n - torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("seed", [0, 1, 2])
class TestAgainstHuggingFace:
    def test_logits_attentions_loss_and_gradients(self, seed):
        ours, theirs = pair(seed)
        ids = prompts(seed, 3, 13)
        labels = ids.masked_fill(torch.rand(3, 13) < 0.2, -100)
        mine = ours(ids, labels=labels, need_weights=True)
        other = theirs(ids, labels=labels, output_attentions=True)
        torch.testing.assert_close(mine.logits, other.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mine.loss, other.loss)
        for a, b in zip(mine.attentions, other.attentions, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        mine.loss.backward()
        other.loss.backward()
        for i, block in enumerate(ours.blocks):
            wanted = theirs.transformer.h[i].attn.c_attn.weight.grad.T
            torch.testing.assert_close(
                block.attention.qkv_proj.weight.grad, wanted, atol=1e-4, rtol=1e-3
            )
        wanted = theirs.transformer.wte.weight.grad
        torch.testing.assert_close(ours.token_embedding.weight.grad, wanted, atol=1e-4, rtol=1e-3)

    def test_left_padded_prompts(self, seed):
        ours, theirs = pair(seed)
        ids, mask = prompts(seed, 3, 9), left_padded([9, 1, 5], 9)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            mine = ours(ids, mask).logits
            other = theirs(ids, attention_mask=mask.long(), position_ids=positions).logits
        torch.testing.assert_close(mine[mask], other[mask], atol=1e-4, rtol=1e-4)

    def test_greedy_continuations_of_left_padded_prompts(self, seed):
        ours, theirs = pair(seed)
        ids, mask = prompts(seed, 3, 9), left_padded([9, 1, 5], 9)
        wanted = theirs.generate(
            ids, attention_mask=mask.long(), max_new_tokens=10, do_sample=False
        )
        for use_cache in (True, False):
            assert generate(ours, ids, 10, mask, use_cache=use_cache).equal(wanted)

    def test_drawn_continuations(self, seed):
        ours, theirs = pair(seed)
        ids, how = prompts(seed, 2, 4), {"temperature": 0.7, "top_k": 12, "top_p": 0.9}
        torch.manual_seed(seed)
        wanted = theirs.generate(ids, max_new_tokens=15, do_sample=True, **how)
        torch.manual_seed(seed)
        assert generate(ours, ids, 15, **how).equal(wanted)


class TestCache:
    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("pieces", [[1] * 11, [4, 1, 6], [11]])
    def test_read_in_pieces_it_scores_as_when_read_at_once(self, padded, pieces):
        model, _ = pair(0)
        ids, mask = prompts(0, 2, 11), left_padded([11, 4], 11) if padded else None
        with torch.no_grad():
            wanted, got, caches, read = model(ids, mask).logits, [], model.new_caches(2), 0
            for n in pieces:
                seen = None if mask is None else mask[:, : read + n]
                got.append(model(ids[:, read : read + n], seen, caches=caches).logits)
                read += n
        real = slice(None) if mask is None else mask
        torch.testing.assert_close(torch.cat(got, 1)[real], wanted[real], atol=1e-5, rtol=1e-5)

    def test_it_is_full_at_the_length_of_the_model(self):
        model, _ = pair(0)
        caches = model.new_caches(1)
        model(prompts(0, 1, 19), caches=caches)
        with pytest.raises(ValueError, match="at most 19 tokens, got 20"):
            model(prompts(0, 1, 1), caches=caches)


def test_no_token_sees_a_later_one():
    model, _ = pair(0)
    ids = prompts(0, 1, 12)
    changed = ids.clone()
    changed[0, 7:] = (ids[0, 7:] + 1) % 50
    with torch.no_grad():
        one, other = model(ids).logits, model(changed).logits
    torch.testing.assert_close(one[:, :7], other[:, :7], atol=1e-6, rtol=0)
    assert (one[:, 7:] - other[:, 7:]).abs().amax(-1).min() > 1e-3


def test_capture_sees_every_layer():
    model, _ = pair(0)
    ids = prompts(0, 2, 7)
    with torch.no_grad(), av.capture(model) as seen:
        wanted = model(ids, need_weights=True).attentions
    assert len(seen) == 3
    for record, weights in zip(seen, wanted, strict=True):
        torch.testing.assert_close(record.weights[:], weights, atol=1e-6, rtol=0)


def test_bfloat16_is_close_to_float32():
    model, _ = pair(0)
    ids = prompts(0, 2, 9)
    with torch.no_grad():
        wanted = model(ids).logits
        got = model.bfloat16()(ids).logits
    assert (got - wanted).abs().max() < 0.1 * wanted.abs().max()


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((torch.zeros(1, 0, dtype=torch.int64),), ValueError, r"at least one token, got \(1"),
            ((torch.zeros(3, dtype=torch.int64),), ValueError, r"\(batch, token\)"),
            ((torch.zeros(1, 2),), TypeError, "int64 tensor, got torch.float32"),
            ((torch.tensor([[50]]),), ValueError, "vocab_size - 1 = 49, got 50 to 50"),
            ((torch.zeros(1, 20, dtype=torch.int64),), ValueError, "at most 19 tokens, got 20"),
            ((torch.tensor([[1]]), torch.ones(1, 2).bool()), ValueError, r"mask must be \(1, 1\)"),
            ((torch.tensor([[1]]), torch.ones(1, 1)), TypeError, "mask must be bool"),
            (
                (torch.tensor([[1, 2]]), torch.tensor([[True, False]])),
                ValueError,
                "in front of the real tokens",
            ),
            ((torch.tensor([[1]]), None, torch.tensor([1])), ValueError, r"labels must be \(1, 1"),
        ],
    )
    def test_inputs(self, arguments, error, message):
        with pytest.raises(error, match=message):
            GPT(SIZES)(*arguments)

    def test_sizes(self):
        with pytest.raises(ValueError, match="n_layers must be at least 1, got 0"):
            GPTConfig(n_layers=0)
