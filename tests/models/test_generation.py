"""Which token comes next, beside what Hugging Face draws with, and whole continuations."""

from contextlib import nullcontext

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from attnviz.models import GPT, GPTConfig, generate, next_probabilities

SIZES = GPTConfig(
    vocab_size=50, d_model=24, n_layers=2, n_heads=4, d_ff=40, max_len=30, dropout=0.5
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GPT(SIZES)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def prompts(batch, n):
    return torch.randint(50, (batch, n), generator=torch.Generator().manual_seed(n))


class TestNextProbabilities:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize(
        ("temperature", "top_k", "top_p"),
        [(1.0, None, 1.0), (0.7, None, 1.0), (1.5, 5, 1.0), (1.0, None, 0.8), (0.9, 10, 0.6),
         (1.0, 50, 1.0), (1.0, 1, 1.0), (1.0, None, 1e-6)],
    )  # fmt: skip
    def test_it_is_what_hugging_face_draws_with(self, seed, temperature, top_k, top_p):
        torch.manual_seed(seed)
        logits = 3 * torch.randn(4, 50)
        wanted = TemperatureLogitsWarper(temperature)(None, logits)
        wanted = wanted if top_k is None else TopKLogitsWarper(top_k)(None, wanted)
        wanted = wanted if top_p == 1 else TopPLogitsWarper(top_p)(None, wanted)
        got = next_probabilities(logits, temperature, top_k, top_p)
        torch.testing.assert_close(got, wanted.softmax(-1))
        torch.testing.assert_close(got.sum(-1), torch.ones(4))

    def test_temperature_zero_leaves_the_likeliest(self):
        got = next_probabilities(torch.tensor([0.1, 2.0, 1.9]), temperature=0)
        assert got.tolist() == [0, 1, 0]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
            ({"top_k": 0}, "top_k must be at least 1, got 0"),
            ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
            ({"top_p": 1.1}, "got 1.1"),
        ],
    )
    def test_bad_input(self, given, message):
        with pytest.raises(ValueError, match=message):
            next_probabilities(torch.zeros(3), **given)


class TestGenerate:
    @pytest.mark.parametrize("how", [{}, {"temperature": 0.8, "top_k": 9, "top_p": 0.9}])
    def test_the_same_tokens_with_and_without_a_cache(self, model, how):
        with_cache, without = (
            generate(
                model, prompts(3, 4), 26, use_cache=cached,
                generator=torch.Generator().manual_seed(0), **how,
            )
            for cached in (True, False)
        )  # fmt: skip
        assert with_cache.equal(without)
        assert with_cache.shape == (3, 30)
        assert with_cache[:, :4].equal(prompts(3, 4))

    def test_a_padded_prompt_goes_on_as_it_does_alone(self, model):
        short = prompts(1, 3)
        padded = torch.cat([torch.zeros(1, 5, dtype=torch.int64), short], 1)
        batch = torch.cat([padded, prompts(1, 8)])
        mask = torch.ones(2, 8, dtype=torch.bool)
        mask[0, :5] = False
        both = generate(model, batch, 12, mask)
        assert both[0, 5:].equal(generate(model, short, 12)[0])
        assert both[1].equal(generate(model, prompts(1, 8), 12)[0])

    def test_greedy_is_the_likeliest_token_again_and_again(self, model):
        ids = prompts(1, 2)
        for _ in range(6):
            with torch.no_grad():
                ids = torch.cat([ids, model.eval()(ids).logits[:, -1:].argmax(-1)], 1)
        assert generate(model, prompts(1, 2), 6).equal(ids)

    def test_a_training_model_goes_on_training(self, model):
        model.train()
        one, other = (generate(model, prompts(1, 2), 9) for _ in range(2))
        assert one.equal(other)  # no dropout meanwhile
        assert model.training

    @pytest.mark.parametrize("wrong", [False, True])
    def test_the_weights_are_left_where_they_were(self, model, wrong):
        before = {n: (p.data_ptr(), p.stride(), p.clone()) for n, p in model.named_parameters()}
        ids = prompts(1, 2) + 50 * wrong  # such pieces there are none
        with pytest.raises(ValueError, match="vocab_size") if wrong else nullcontext():
            generate(model, ids, 12)
        for name, p in model.named_parameters():
            pointer, stride, values = before[name]
            assert (p.data_ptr(), p.stride()) == (pointer, stride)
            assert p.equal(values)

    def test_drawing_repeats_with_its_generator(self, model):
        drawn = [
            generate(
                model, prompts(1, 2), 20, temperature=1, generator=torch.Generator().manual_seed(s)
            )
            for s in (0, 0, 1)
        ]
        assert drawn[0].equal(drawn[1])
        assert not drawn[0].equal(drawn[2])

    def test_nothing_to_write(self, model):
        assert generate(model, prompts(2, 3), 0).equal(prompts(2, 3))

    @pytest.mark.parametrize(
        ("n", "n_new", "message"),
        [(20, 11, r"at most max_len=30 tokens together, got 20 \+ 11"), (31, 0, "31"),
         (3, -1, r"got 3 \+ -1"), (0, 4, "at least one token")],
    )  # fmt: skip
    def test_prompts_that_do_not_fit(self, model, n, n_new, message):
        with pytest.raises(ValueError, match=message):
            generate(model, prompts(1, n), n_new)

    def test_an_empty_prompt_among_others(self, model):
        mask = torch.tensor([[False, True, True], [False, False, False]])
        with pytest.raises(ValueError, match="a real token, but row 1 is all padding"):
            generate(model, prompts(2, 3), 4, mask)
