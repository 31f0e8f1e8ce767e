"""What a capture keeps, what it refuses, and that it leaves nothing behind."""

import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack as modes
from transformers import GPT2Config, GPT2Model

import attnviz as av
from attnviz.layers import MultiHeadAttention
from attnviz.models import BertConfig, BertEncoder


def encoder(seed=0, n_layers=3):
    torch.manual_seed(seed)
    return BertEncoder(BertConfig(50, 32, n_layers, 4, 64, 300, dropout=0)).eval()


def tokens(n=7, batch=2):
    return torch.randint(50, (batch, n))


@pytest.fixture
def model():
    return encoder()


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert not modes()
    assert not nn.modules.module._global_forward_pre_hooks
    assert not nn.modules.module._global_forward_hooks


class TestRecords:
    def test_are_numbered_and_named_in_order(self, model):
        with av.capture(model) as seen:
            model(tokens())
        assert [r.index for r in seen] == [0, 1, 2]
        assert [r.path for r in seen] == [f"blocks.{i}.attention" for i in range(3)]
        sizes = {(r.pass_number, r.kind, r.heads, r.n_queries, r.n_keys) for r in seen}
        assert sizes == {(0, "self", 4, 7, 7)}

    def test_count_the_passes(self, model):
        with av.capture(model) as seen:
            model(tokens(5))
            model(tokens(6))
        assert [(r.pass_number, r.index, r.n_keys) for r in seen] == [
            *[(0, i, 5) for i in range(3)],
            *[(1, i, 6) for i in range(3)],
        ]

    def test_of_chosen_layers_only(self, model):
        with av.capture(model, layers=[2, 0]) as seen:
            model(tokens())
        assert [r.index for r in seen] == [0, 2]

    def test_read_as_a_table(self, model):
        with av.capture(model) as seen:
            model(tokens())
        header, *rows = repr(seen).splitlines()
        assert header.split() == ["index", "pass", "path", "kind", "heads", "queries", "×", "keys"]
        assert rows[1].split() == ["1", "0", "blocks.1.attention", "self", "4", "7", "×", "7"]
        assert seen._repr_html_().count("<tr>") == 4
        assert repr(seen[1]).startswith("<attention 1 of pass 0: blocks.1.attention, self, 4 heads")

    def test_module_names_are_no_markup(self):
        model = nn.ModuleDict({"<b>": MultiHeadAttention(8, 2)})
        model.forward = lambda x: model["<b>"](x)
        with av.capture(model) as seen:
            model(torch.randn(1, 3, 8))
        assert "<b>" not in seen._repr_html_()
        assert "&lt;b&gt;" in seen._repr_html_()

    def test_keep_memory_that_grows_with_the_tokens_not_with_their_square(self, model):
        def kept(n):
            with av.capture(model) as seen:
                model(tokens(n))
            tensors = [t for r in seen for t in vars(r).values() if isinstance(t, torch.Tensor)]
            return sum(t.untyped_storage().nbytes() for t in tensors)

        assert kept(200) == 2 * kept(100)

    def test_stay_as_they_were_when_the_model_works_in_place(self):
        class Spoiler(nn.Module):
            def forward(self, q):
                mixed = F.scaled_dot_product_attention(q, q, q)
                q.zero_()
                return mixed

        q = torch.randn(1, 2, 5, 4)
        expected = (q @ q.mT / 2).softmax(-1)
        with av.capture(spoiler := Spoiler()) as seen:
            spoiler(q)
        torch.testing.assert_close(seen[0].weights, expected)


class TestWeights:
    @pytest.fixture
    def record(self, model):
        with av.capture(model) as seen:
            model(tokens(23), mask=torch.arange(23) < torch.tensor([[23], [9]]))
        return seen[1]

    def test_rows_sum_to_one(self, record):
        assert record.weights.shape == (2, 4, 23, 23)
        torch.testing.assert_close(record.weights.sum(-1), torch.ones(2, 4, 23))

    def test_a_row(self, record):
        torch.testing.assert_close(record.row(5), record.weights[:, :, 5])
        torch.testing.assert_close(record.row(-1), record.weights[:, :, -1])

    def test_a_tile(self, record):
        tile = record.tile(slice(3, 9), slice(2, 20, 3))
        torch.testing.assert_close(tile, record.weights[:, :, 3:9, 2:20:3])

    @pytest.mark.parametrize("size", [1, 2, 5, 22, 23, 100])
    @pytest.mark.parametrize("block", [1, 1000, 2**24])
    def test_an_overview_keeps_the_largest_of_each_patch(self, record, size, block, monkeypatch):
        monkeypatch.setattr("attnviz.seeing.record._BLOCK", block)
        weights = record.weights
        small = record.overview(size)
        side = min(size, 23)
        assert small.shape == (2, 4, side, side)
        assert small.max() == weights.max()  # no strong link is lost
        edges = [23 * i // side for i in range(side + 1)]
        for i in range(side):
            rows = weights[:, :, edges[i] : edges[i + 1]]
            torch.testing.assert_close(small[:, :, i].amax(-1), rows.amax((-2, -1)))

    @pytest.mark.parametrize("query", [23, -24])
    def test_a_query_that_does_not_exist(self, record, query):
        with pytest.raises(IndexError, match=f"query must be between -23 and 22, got {query}"):
            record.row(query)

    def test_a_size_that_is_none(self, record):
        with pytest.raises(ValueError, match="size must be at least 1, got 0"):
            record.overview(0)

    def test_numbers_where_slices_are_wanted(self, record):
        with pytest.raises(TypeError, match="queries and keys must be slices, got 3"):
            record.tile(3, slice(None))


class WrittenOut(nn.Module):
    """Attention by hand, on (batch, heads, token, d_k)."""

    def forward(self, q):
        return (q @ q.mT / q.size(-1) ** 0.5).softmax(-1) @ q


class Fused(nn.Module):
    def forward(self, q):
        return F.scaled_dot_product_attention(q, q, q)


class TestWithGradients:
    @pytest.mark.parametrize("attention", [WrittenOut, Fused])
    @pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 5, 4), (5, 4)])
    @pytest.mark.parametrize("frozen", [False, True])
    def test_the_gradient_of_the_weights_is_there(self, attention, shape, frozen):
        model, q = attention(), torch.randn(shape, requires_grad=not frozen)
        with av.capture(model, with_gradients=True) as seen:
            output = model(q)
        upstream = torch.randn(shape)
        output.backward(upstream)
        assert output.shape == shape
        # d(weights @ value) / d weights, by hand
        expected = (upstream @ q.detach().mT).reshape(seen[0].weights.shape)
        torch.testing.assert_close(seen[0].weights.grad, expected)
        torch.testing.assert_close(output, Fused()(q), atol=1e-5, rtol=1e-5)

    def test_the_gradients_of_the_parameters_stay_right(self, model):
        ids = tokens()
        plain = torch.autograd.grad(model(ids).last_hidden_state.square().sum(), model.parameters())
        with av.capture(model, with_gradients=True):
            output = model(ids).last_hidden_state
        seen = torch.autograd.grad(output.square().sum(), model.parameters())
        for a, b in zip(plain, seen, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)

    def test_not_where_gradients_are_switched_off(self, model):
        with (
            torch.no_grad(),
            pytest.raises(ValueError, match=r"outside torch\.no_grad"),
            av.capture(model, with_gradients=True),
        ):
            model(tokens())


class TestSeveralAtOnce:
    def test_two_captures_of_one_model_see_the_same(self, model):
        with av.capture(model) as outer, av.capture(model, layers=[1]) as inner:
            model(tokens())
        assert (len(outer), len(inner)) == (3, 1)
        assert inner[0].index == 1

    def test_captures_of_two_models_do_not_mix(self):
        one, two = encoder(0, n_layers=2), encoder(1, n_layers=3)
        with av.capture(one) as seen_one, av.capture(two) as seen_two:
            one(tokens(4))
            two(tokens(5))
            one(tokens(6))
        assert [r.n_keys for r in seen_one] == [4, 4, 6, 6]
        assert [r.n_keys for r in seen_two] == [5, 5, 5]

    def test_a_part_of_a_model_is_seen_alone(self, model):
        with av.capture(model.blocks[1]) as part, av.capture(model) as whole:
            model(tokens())
        assert [r.path for r in part] == ["attention"]
        assert len(whole) == 3

    def test_what_runs_again_for_one_is_not_missed_by_another(self):
        # torch's encoder is run again, in case it has a fast path; with an odd number of heads none
        layer = nn.TransformerEncoderLayer(15, 3, 32, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        model, x = nn.Sequential(encoder).eval(), torch.rand(1, 5, 15)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            plain = model(x)
            with av.capture(model) as whole, av.capture(encoder) as part:
                seen = model(x)
        assert torch.equal(seen, plain)
        assert (len(whole), len(part)) == (2, 2)

    def test_threads_do_not_mix(self):
        models = [encoder(seed, n_layers=2) for seed in range(4)]
        shared = encoder(9, n_layers=2)
        wrong, start = [], threading.Barrier(4)

        def work(number):
            start.wait()
            for _ in range(5):
                with av.capture(models[number]) as own, av.capture(shared) as common:
                    models[number](tokens(4 + number))
                    shared(tokens(10 + number))
                own_sizes = [r.n_keys for r in own]
                common_sizes = [r.n_keys for r in common]
                if own_sizes != [4 + number] * 2 or common_sizes != [10 + number] * 2:
                    wrong.append((own_sizes, common_sizes))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = MultiHeadAttention(8, 2)
        self.fails = True

    def forward(self, x):
        x, _ = self.attention(x)
        if self.fails:
            raise RuntimeError("in the model")
        return x


class TestCrashes:
    def test_of_the_block_go_through_and_leave_nothing(self, model):
        ids = tokens()
        before = model(ids).last_hidden_state

        def crash():
            with av.capture(model):
                model(ids)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            crash()
        assert torch.equal(model(ids).last_hidden_state, before)

    def test_of_the_model_do_not_spoil_the_next_pass(self):
        model, x = Failing(), torch.randn(1, 3, 8)
        with av.capture(model) as seen:
            with pytest.raises(RuntimeError, match="in the model"):
                model(x)
            model.fails = False
            model(x)
        assert [(r.pass_number, r.index) for r in seen] == [(0, 0), (1, 0)]


class NoSoftmax(nn.Module):
    """A linear attention, which has no weights to see."""

    def forward(self, x):
        return x @ (x.mT @ x)


class TestWhatCannotBeSeen:
    def test_a_block_in_which_nothing_ran(self, model):
        with pytest.raises(ValueError, match="no attention was seen"), av.capture(model):
            pass

    def test_a_model_without_attention(self):
        model = NoSoftmax()
        with pytest.raises(ValueError, match="no attention was seen"), av.capture(model):
            model(torch.randn(1, 3, 4))

    def test_a_softmax_that_meets_no_values_is_no_attention(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1))
        with pytest.raises(ValueError, match="no attention was seen"), av.capture(model):
            model(torch.randn(2, 3, 5, 4))

    def test_no_warning_where_all_is_seen(self, model):
        with warnings.catch_warnings(), av.capture(model):
            warnings.simplefilter("error")
            model(tokens())

    @pytest.mark.slow
    def test_a_compiled_model(self, model):
        with pytest.raises(ValueError, match=r"compiled.*force_eager"):
            av.capture(torch.compile(model)).__enter__()

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_scripted_model(self):
        scripted = torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))
        with pytest.raises(ValueError, match="TorchScript"):
            av.capture(scripted).__enter__()

    def test_a_fused_kernel_says_what_to_set(self):
        model = GPT2Model(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9))
        model.config._attn_implementation_internal = "flash_attention_2"
        message = r"'flash_attention_2' cannot be seen.*attn_implementation=\"sdpa\""
        with pytest.raises(ValueError, match=message):
            av.capture(model).__enter__()

    def test_what_is_no_model(self):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
            av.capture(lambda x: x).__enter__()

    def test_a_layer_that_does_not_exist(self, model):
        message = r"layers names 7, but a pass had at most 3 attentions \(0 to 2\)"
        with pytest.raises(ValueError, match=message), av.capture(model, layers=[0, 7]):
            model(tokens())

    @pytest.mark.parametrize("layers", [[-1], [1.0], ["blocks.0"], [True], []])
    def test_layers_that_are_none(self, model, layers):
        with pytest.raises(ValueError, match="layers must"):
            av.capture(model, layers=layers).__enter__()
