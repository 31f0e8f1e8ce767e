"""Writing 512 tokens with a GPT: with a cache, without, and with Hugging Face's `generate`.

python benchmarks/generation.py            about 3 minutes on two cores
python benchmarks/generation.py --rounds 1

All sides hold the same random weights (6 layers, 384 wide, 6 heads), begin with the same 16 tokens
and write greedily. They take turns in this process; medians over the rounds, and ratios to ours
with a cache. The tokens of all sides must be the same.
"""

import argparse

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from attnviz import timeit
from attnviz.models import GPT, GPTConfig, generate

N_NEW = 512
SIZES = GPTConfig(
    vocab_size=4_000, d_model=384, n_layers=6, n_heads=6, d_ff=1_536, max_len=16 + N_NEW, dropout=0
)
NAMES = {  # of a block's parts: ours and Hugging Face's
    "attention_norm": "ln_1",
    "attention.qkv_proj": "attn.c_attn",
    "attention.out_proj": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "widen": "mlp.c_fc",
    "narrow": "mlp.c_proj",
}


def hugging_face(ours: GPT) -> GPT2LMHeadModel:
    """A GPT-2 with the weights of ours."""
    settings = GPT2Config(
        vocab_size=SIZES.vocab_size, n_embd=SIZES.d_model, n_layer=SIZES.n_layers,
        n_head=SIZES.n_heads, n_inner=SIZES.d_ff, n_positions=SIZES.max_len,
        bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(settings).eval()
    with torch.no_grad():
        model.transformer.wte.weight.copy_(ours.token_embedding.weight)
        model.transformer.wpe.weight.copy_(ours.position_embedding.weight)
        model.transformer.ln_f.load_state_dict(ours.final_norm.state_dict())
        for mine, other in zip(ours.blocks, model.transformer.h, strict=True):
            for a, b in NAMES.items():
                source, target = mine.get_submodule(a), other.get_submodule(b)
                # GPT-2's "Conv1D" holds its weights the other way round
                target.weight.copy_(source.weight.T if source.weight.dim() == 2 else source.weight)
                target.bias.copy_(source.bias)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    ours = GPT(SIZES).eval()
    theirs = hugging_face(ours)
    prompt = torch.randint(SIZES.vocab_size, (1, 16))

    def write_theirs() -> Tensor:
        seen = torch.ones_like(prompt)
        return theirs.generate(prompt, attention_mask=seen, max_new_tokens=N_NEW, do_sample=False)

    sides = {
        "attnviz, with a cache": lambda: generate(ours, prompt, N_NEW),
        "Hugging Face, with a cache": write_theirs,
        "attnviz, without": lambda: generate(ours, prompt, N_NEW, use_cache=False),
    }
    same = {name: write().equal(generate(ours, prompt, N_NEW)) for name, write in sides.items()}
    taken = timeit(sides, rounds, warm_up=0)
    least = taken["attnviz, with a cache"].p50
    print(f"{N_NEW} new tokens")
    for name, seconds in taken.items():
        print(
            f"{name:28}{seconds.p50:8.2f} s{N_NEW / seconds.p50:8.0f} tokens/s"
            f"{seconds.p50 / least:8.2f} ×   same tokens: {'yes' if same[name] else 'no'}"
        )


if __name__ == "__main__":
    main()
