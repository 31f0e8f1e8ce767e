"""A weight taken apart: the numbers that are sent, how many, the selection, and what is refused."""

import base64
import math

import numpy as np
import pytest
import torch
from torch import nn

import attnviz as av
from attnviz.seeing.record import AttentionRecord
from attnviz.views.scores import PAGE_QUERIES, scores
from attnviz.views.scores_row import SHOWN

TOKENS = ["[CLS]", "the", "cat", "sat", "[SEP]"]
LEAST = torch.finfo(torch.float32).min


def record(n_queries=5, n_keys=5, heads=4, key_heads=4, batch=2, d=8, **other):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(batch, heads, n_queries, d, generator=generator)
    key = torch.randn(batch, key_heads, n_keys, d, generator=generator)
    return AttentionRecord(0, 0, "encoder.0", "self", query, key, scale=d**-0.5, **other)


def names(n):
    return [f"t{i}" for i in range(n)]


def draw(one, head=1, **other):
    queries, keys = names(one.n_queries), names(one.n_keys)
    return scores(one, queries, head, key_tokens=keys, **other)


def read(said, buffers):
    """What a page reads from an answer, by name."""
    parts = dict(
        zip(
            ("q", "k", "dots", "bias", "softmax", "weights"),
            (np.frombuffer(b, "<f4") for b in buffers),
            strict=True,
        )
    )
    n = len(said["keys"])
    return {**said, **parts, "k": parts["k"].reshape(n, -1)}


def row_of(view, query=0):
    return read(*view._answer({"query": query}))


CAUSAL = torch.ones(5, 5).tril().bool()
KINDS = {
    "plain": {},
    "causal": {"is_causal": True},
    "a bool mask": {"mask": CAUSAL},
    "a mask of the keys": {"mask": torch.tensor([[True, True, False, True, False]])},
    "a mask for each item": {"mask": torch.stack([CAUSAL, ~CAUSAL | torch.eye(5).bool()])[:, None]},
    "an added mask": {"mask": torch.zeros(5, 5).masked_fill(~CAUSAL, LEAST)},
    "an added mask of −∞": {"mask": torch.zeros(5, 5).masked_fill(~CAUSAL, -math.inf)},
    "a bias for each head": {"mask": torch.randn(1, 4, 5, 5)},
    "a bias and causality": {"mask": torch.randn(1, 4, 1, 5), "is_causal": True},
    "fewer heads of keys": {"key_heads": 2},
    "bfloat16": {},
}


class TestNumbers:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("head", [0, 3])
    def test_lead_from_query_and_key_to_the_weights_of_the_record(self, kind, head):
        one = record(**KINDS[kind])
        if kind == "bfloat16":
            one.query, one.key = one.query.bfloat16(), one.key.bfloat16()
        view = draw(one, head, item=1)
        for query in range(5):
            row = row_of(view, query)
            assert row["keys"] == list(range(5))
            assert np.array_equal(row["weights"], one.weights[1, head, query].numpy())
            group = head * one.key.size(1) // 4
            assert np.array_equal(row["q"], one.query[1, head, query].float())
            assert np.array_equal(row["k"], one.key[1, group].float())
            assert np.allclose(row["dots"], row["k"] @ row["q"], atol=1e-5)
            score = row["dots"] * view.scale + row["bias"]
            weights = np.exp(score - row["log_sum"])
            assert np.allclose(weights, row["weights"], atol=1e-5)
            assert np.allclose(row["softmax"], row["weights"], atol=1e-5)
            assert row["changed"] == ""

    @pytest.mark.parametrize(
        "kind", ["causal", "a bool mask", "an added mask", "an added mask of −∞"]
    )
    def test_a_key_that_is_masked_out_has_no_number_added(self, kind):
        row = row_of(draw(record(**KINDS[kind])), 2)
        assert row["bias"].tolist() == [0, 0, 0, -math.inf, -math.inf]
        assert row["masked"] == 2

    def test_a_strong_bias_is_no_mask(self):
        bias = torch.tensor([0.0, -5000.0, 0.0, 0.0, 0.0])  # as ALiBi adds far away
        row = row_of(draw(record(mask=bias)))
        assert row["bias"].tolist() == bias.tolist()
        assert row["masked"] == 0

    def test_a_query_that_may_attend_to_nothing(self):
        view = draw(record(mask=torch.zeros(5, 5, dtype=torch.bool)))
        row = row_of(view)
        assert row["weights"].tolist() == row["softmax"].tolist() == [0.0] * 5
        assert (row["log_sum"], row["masked"]) == (None, 5)
        view.figure()

    def test_where_least_numbers_mask_everything_they_mask_nothing(self):
        row = row_of(draw(record(mask=torch.full((5, 5), LEAST))))
        assert row["weights"].tolist() == [np.float32(0.2)] * 5
        assert row["masked"] == 0

    def test_keys_of_another_sequence(self):
        one = record(n_queries=3, n_keys=7)
        row = row_of(draw(one), 2)
        assert np.allclose(row["weights"], one.weights[0, 1, 2])
        assert row["k"].shape == (7, 8)

    def test_of_a_model_that_was_captured(self):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, batch_first=True).eval()
        for with_gradients in (False, True):
            with av.capture(layer, with_gradients=with_gradients) as seen:
                layer(torch.randn(2, 5, 16))
            row = row_of(scores(seen[0], TOKENS, 1, item=1), 3)
            assert np.allclose(row["weights"], seen[0].weights[1, 1, 3].detach(), atol=1e-6)
            assert np.allclose(row["softmax"], row["weights"], atol=1e-5)


class TestEdits:
    def test_the_edited_weights_are_shown_beside_the_softmax(self):
        one = record(changes={1: av.only(0)})
        row = row_of(draw(one), 3)
        assert row["weights"].tolist() == [1, 0, 0, 0, 0]
        assert np.allclose(row["softmax"], record().weights[0, 1, 3], atol=1e-6)
        assert row["changed"] == "edit"

    def test_other_heads_are_not_edited(self):
        assert row_of(draw(record(changes={1: av.uniform}), head=2))["changed"] == ""

    def test_an_edit_that_leaves_a_row_as_it_was_is_none(self):
        assert row_of(draw(record(changes={1: av.temperature(1.0)})))["changed"] == ""

    def test_weights_that_something_else_changed(self):
        weights = record().weights.roll(1, dims=-1)
        row = row_of(draw(record(written_out=weights)))
        assert row["changed"] == "other"
        assert np.array_equal(row["weights"], weights[0, 1, 0])

    def test_weights_that_were_rounded_are_none(self):
        rounded = record().weights.bfloat16()
        assert row_of(draw(record(written_out=rounded)))["changed"] == ""


class TestManyKeys:
    @pytest.fixture
    def view(self):
        return draw(record(300, 300, batch=1))

    def test_those_with_the_largest_weights_are_sent_in_order(self, view):
        row = row_of(view, 7)
        weights = record(300, 300, batch=1).weights[0, 1, 7].numpy()
        assert row["keys"] == sorted(np.argsort(-weights)[:SHOWN])
        assert np.allclose(row["weights"], weights[row["keys"]])
        assert len(row["dots"]) == len(row["k"]) == SHOWN
        assert row["masked"] == 0

    def test_the_softmax_is_over_all_keys(self, view):
        row = row_of(view, 7)
        scores = row["dots"] * view.scale
        assert np.allclose(np.exp(scores - row["log_sum"]), row["weights"], atol=1e-6)
        assert row["weights"].sum() < 0.99

    def test_a_key_that_is_asked_for_is_among_them(self, view):
        weakest = int(record(300, 300, batch=1).weights[0, 1, 7].argmin())
        row = read(*view._answer({"query": 7, "key": weakest}))
        assert weakest in row["keys"]
        assert len(row["keys"]) == SHOWN + 1

    def test_a_page_works_the_rows_of_an_edited_head_out_once(self):
        one, asked = record(300, 300), []
        one.changes = {2: lambda weights: asked.append(weights.shape) or weights}
        view = draw(one, 2)
        asked.clear()
        assert len(list(view._page_answers())) == PAGE_QUERIES
        assert asked == [(1, 300, 300)]

    def test_only_one_row_is_worked_out(self):
        one, asked = record(300, 300), []

        class Watched(AttentionRecord):
            def tile(self, queries, keys):
                asked.append((self.heads, queries, keys))
                return super().tile(queries, keys)

        one.__class__ = Watched
        draw(one, 2).selection = {"query": 299}
        assert asked == [(1, slice(i, i + 1), slice(None)) for i in (0, 299)]


class TestWhatIsSent:
    def test_one_row_of_few_bytes(self):
        view = draw(record(300, 300, d=128))
        view.selection = {"query": 3, "key": 299}
        sent = sum(len(b) for b in view.row["buffers"])
        assert sent <= 4 * ((SHOWN + 1) * (128 + 4) + 128) < 35_000

    def test_the_first_query_at_first_and_then_the_selected_one(self):
        view = draw(record())
        assert view.row["query"] == 0
        view.selection = {"query": 3}
        assert read(view.row, view.row["buffers"])["query"] == 3
        view.selection = {"key": 1}
        assert view.row["query"] == 3

    def test_a_key_that_is_selected_later_is_in_the_row(self):
        view = draw(record(300, 300))
        absent = next(key for key in range(300) if key not in view.row["keys"])
        view.selection = {"query": 0, "key": absent}
        assert absent in view.row["keys"]

    def test_where_it_is_from(self):
        view = draw(record(), title="a title")
        assert (view.title, view.place) == ("a title", "head 1 of encoder.0")
        assert view.scale == pytest.approx(8**-0.5)
        assert repr(view) == "ScoresView(head 1 of encoder.0, 5 queries × 5 keys)"

    def test_the_saved_notebook_carries_a_picture(self):
        data, _ = draw(record())._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")

    def test_the_browser_side_needs_no_network(self):
        view = draw(record())
        assert "http" not in view._esm + view._css


class TestSelection:
    @pytest.mark.parametrize(
        ("selection", "error", "message"),
        [
            ({"query": 3}, ValueError, r"selection\['query'\] must be between 0 and 2, got 3"),
            ({"key": 5}, ValueError, "between 0 and 4, got 5"),
            ({"query": "1"}, TypeError, "whole number or None"),
        ],
    )
    def test_what_cannot_be_selected(self, selection, error, message):
        view = draw(record(n_queries=3))
        with pytest.raises(error, match=message):
            view.selection = selection

    def test_a_selection_made_after_the_record_was_freed_does_no_harm(self):
        view = draw(one := record())
        one.free()
        view.selection = {"query": 2}
        assert view.row["query"] == 0
        with pytest.raises(RuntimeError, match="was freed: capture it again"):
            view._answer({"query": 2})


class TestQuestions:
    def ask(self, view, question):
        sent = []
        view.send = lambda content, buffers=None: sent.append((content, buffers))
        view._hear(None, {"number": "a-1", "question": question}, [])
        return sent[0]

    def test_are_answered_with_the_row(self):
        view = draw(record())
        content, buffers = self.ask(view, {"query": 2})
        assert content["number"] == "a-1"
        assert read(content["answer"], buffers)["query"] == 2

    @pytest.mark.parametrize(
        "question", [{"query": 5}, {"query": -1}, {"row": 1}, {"query": None}, {"query": 0.5}]
    )
    def test_that_make_no_sense_are_refused(self, question):
        content, _ = self.ask(draw(record()), question)
        assert content["error"].startswith(
            ("selection['query'] must be", "this view has no answer")
        )

    def test_about_a_freed_record_are_answered_with_the_reason(self):
        view = draw(one := record())
        one.free()
        content, _ = self.ask(view, {"query": 2})
        assert "was freed: capture it again" in content["error"]


class TestSaving:
    @pytest.mark.slow
    @pytest.mark.parametrize("ending", ["html", "png", "svg", "pdf"])
    def test_as_page_and_figure(self, tmp_path, ending):
        file = tmp_path / f"view.{ending}"
        view = draw(record())
        view.save(file)
        view.save(file)  # its own file is replaced
        assert file.stat().st_size > 1000

    def test_never_over_a_file_of_others(self, tmp_path):
        file = tmp_path / "view.html"
        file.write_text("mine")
        with pytest.raises(FileExistsError):
            draw(record()).save(file)
        assert file.read_text() == "mine"

    def test_a_page_holds_all_queries_of_a_short_text(self):
        view = draw(record())
        answers = list(view._page_answers())
        assert [question for question, _ in answers] == [{"query": i} for i in range(5)]
        assert view._page_state() == {"held": []}
        assert all(answer[0]["query"] == question["query"] for question, answer in answers)

    @pytest.mark.parametrize(("query", "first"), [(0, 0), (150, 22), (299, 44)])
    def test_a_page_holds_the_queries_around_the_selected_one_of_a_long_text(self, query, first):
        view = draw(record(300, 10, batch=1))
        view.selection = {"query": query}
        held = [question["query"] for question, _ in view._page_answers()]
        assert held == list(range(first, first + PAGE_QUERIES))
        assert view._page_state() == {"held": [held[0], held[-1]]}
        assert query in held


class TestFigure:
    def texts(self, figure):
        return [text.get_text() for ax in figure.axes for text in ax.texts]

    def labels(self, figure):
        return [label.get_text() for label in figure.axes[0].get_yticklabels()]

    def test_has_the_numbers_of_the_selected_query(self):
        view = draw(one := record())
        view.selection = {"query": 2}
        figure = view.figure()
        dots = one.query[0, 1, 2] @ one.key[0, 1].mT
        shown = self.texts(figure)
        assert shown[0] == "q·k"
        assert shown[1:6] == [f"{x:.2f}".replace("-", "−") for x in dots]
        assert shown[-6:] == ["weight", *(f"{w:.3f}" for w in one.weights[0, 1, 2])]
        assert self.labels(figure) == ["query 2  t2", *(f"{i}  t{i}" for i in range(5))]

    def test_has_a_bar_for_each_dimension_up_for_positive_numbers(self):
        one = record()
        left, middle, _ = draw(one).figure().axes
        for ax, vectors in [
            (left.collections[-2], one.key[0, 1]),
            (middle.collections[0], one.key[0, 1] * one.query[0, 1, 0]),
        ]:
            corners = np.array([path.vertices[:4] for path in ax.get_paths()])
            tall = -(corners[:, 1, 1] - corners[:, 0, 1]).reshape(5, 8)  # the axis points down
            assert np.allclose(tall * float(vectors.abs().max()) / 0.45, vectors, atol=1e-6)
            colors = ax.get_facecolors().reshape(5, 8, 4)
            assert ((colors[..., 2] > colors[..., 0]) == (vectors > 0).numpy()).all()

    def test_of_many_keys_has_the_strongest_twelve_and_the_selected_one(self):
        view = draw(one := record(300, 300, batch=1))
        weakest = int(one.weights[0, 1, 7].argmin())
        view.selection = {"query": 7, "key": weakest}
        strongest = np.argsort(-one.weights[0, 1, 7].numpy())[:12]
        labels = self.labels(view.figure())[1:]
        assert labels == [f"{i}  t{i}" for i in sorted([*strongest, weakest])]
        assert "(13 of 300 keys" in view.figure().get_suptitle()

    def test_says_what_is_masked_and_what_was_edited(self):
        view = draw(record(is_causal=True, changes={1: av.uniform}))
        view.selection = {"query": 2}
        shown = self.texts(view.figure())
        assert shown.count("masked") == 2
        assert "softmax" in shown
        assert "edited" in shown

    @pytest.mark.slow
    @pytest.mark.parametrize("token", ["猫", "x" * 300, "\ud800", "", "$x_", "\n"])
    def test_is_spoiled_by_no_token(self, token, recwarn):
        data, _ = scores(record(), [token] * 5, 0, title=token)._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
        assert not recwarn.list


class TestBadInput:
    def test_weights_that_were_written_out_alone(self):
        weights = torch.eye(5)[None, None]
        one = AttentionRecord(0, 0, "layer", "self", written_out=weights)
        with pytest.raises(ValueError, match=r'record must have queries.*"sdpa".*heatmap or heads'):
            scores(one, TOKENS, 0)

    @pytest.mark.parametrize("what", [None, torch.eye(5), [], "record", av.seeing.Seen()])
    def test_what_is_no_record(self, what):
        with pytest.raises(TypeError, match=r"record must be one captured record.*, got "):
            scores(what, TOKENS, 0)

    @pytest.mark.parametrize(
        ("head", "error", "message"),
        [
            (4, ValueError, "head must be between 0 and 3, got 4"),
            (-1, ValueError, "head must be between 0 and 3, got -1"),
            (1.0, TypeError, r"head must be a whole number, got 1\.0"),
            (True, TypeError, "head must be a whole number, got True"),
            (None, TypeError, "head must be a whole number, got None"),
        ],
    )
    def test_heads_that_are_none(self, head, error, message):
        with pytest.raises(error, match=message):
            scores(record(), TOKENS, head)

    @pytest.mark.parametrize(
        ("item", "error", "message"),
        [
            (2, IndexError, "item must be between 0 and 1, got 2"),
            (-1, IndexError, "item must be between 0 and 1, got -1"),
            ("0", TypeError, "item must be a whole number, got '0'"),
        ],
    )
    def test_items_that_are_not_there(self, item, error, message):
        with pytest.raises(error, match=message):
            scores(record(), TOKENS, 0, item=item)

    def test_labels_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"tokens must have one label.*got 4"):
            scores(record(), TOKENS[:4], 0)
        with pytest.raises(TypeError, match="tokens must be a list of strings"):
            scores(record(), "abcde", 0)
        with pytest.raises(ValueError, match="give key_tokens"):
            scores(record(n_keys=7), TOKENS, 0)
        with pytest.raises(ValueError, match=r"key_tokens must have.*7.*got 5"):
            scores(record(n_keys=7), TOKENS, 0, key_tokens=TOKENS)

    def test_a_record_that_was_freed(self):
        one = record()
        one.free()
        with pytest.raises(RuntimeError, match="was freed: capture it again"):
            scores(one, TOKENS, 0)

    def test_scores_that_are_no_numbers(self):
        one = record()
        one.query[:] = math.nan
        with pytest.raises(ValueError, match="weights must be finite"):
            scores(one, TOKENS, 0)
