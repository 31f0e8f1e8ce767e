"""Attention of which a share goes to no key: every view draws it, and says how much."""

import math

import numpy as np
import pytest
import torch
from matplotlib.text import Text

import attnviz as av
from attnviz.apps.difference import Difference
from attnviz.seeing import AttentionRecord
from attnviz.views.heatmap import as_matrix, as_rest, numbers, overview
from attnviz.views.measures import measures
from attnviz.views.no_key import no_key, on_average, to_no_key
from attnviz.views.source import check_layers

TOKENS = ["the", "cat", "sat", "on", "a", "mat"]
HIDDEN = torch.ones(6, 6).triu(1).bool()


def record(index=0, sinks=True, heads=4, **other):
    """Causal attention beside one sink of each head, or without."""
    torch.manual_seed(index)
    query, key = torch.randn(2, heads, 6, 8) * 2, torch.randn(2, heads, 6, 8)
    scores = (query @ key.mT / 8**0.5).masked_fill(HIDDEN, -torch.inf)
    beside = torch.linspace(-1, 1, heads).view(1, heads, 1, 1).expand(2, -1, 6, 1)
    weights = torch.cat([scores, beside], -1).softmax(-1)[..., :6] if sinks else scores.softmax(-1)
    return AttentionRecord(
        index, 0, f"layers.{index}", "self", query, key, is_causal=True, scale=8**-0.5,
        written_out=weights, sinks=sinks, **other,
    )  # fmt: skip


@pytest.fixture
def seen():
    return [record(0), record(1, sinks=False), record(2)]


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


class TestTheSentence:
    @pytest.mark.parametrize(
        ("share", "said"),
        [(0.0, "0 %"), (0.004, "0.4 %"), (0.1234, "12 %"), (0.995, "99.5 %"), (1.0, "100 %")],
    )
    def test_says_a_share_in_percent(self, share, said):
        assert to_no_key(share) == f"{said} to no key"

    def test_says_a_mean(self):
        assert on_average(np.array([0.1, 0.3])) == "20 % to no key, on average"
        assert on_average(np.array([])) == ""

    def test_a_share_is_never_below_zero(self):
        assert no_key(np.array([[0.5, 0.504], [0.25, 0.25]])).tolist() == [0, 0.5]


class TestWhatIsRefused:
    @pytest.mark.parametrize("view", [av.heads, av.flow])
    def test_plain_weights_with_rows_below_one(self, view):
        with pytest.raises(ValueError, match=r"sum to 1.*\(sinks\), give attnviz.capture's record"):
            view([record().weights], TOKENS)

    def test_a_plain_matrix_with_rows_below_one(self):
        with pytest.raises(ValueError, match=r"sum to 1.*\(sinks\)"):
            av.heatmap(record().weights[0, 0], TOKENS)

    def test_rows_above_one_even_with_sinks_and_without_that_hint(self):
        wrong = record()
        wrong.written_out = wrong.written_out * 3
        with pytest.raises(ValueError, match=r"at most 1, but row .* \(head 0 of layers\.0\)$"):
            av.heads(wrong, TOKENS)


class TestMeasures:
    def test_entropy_and_distance_are_of_what_the_keys_share(self):
        rows = record().weights[0].numpy()
        found = measures(rows, np.arange(6), TOKENS, same=True, sinks=True)
        for head, weights in enumerate(rows.tolist()):
            rests = [1 - sum(row) for row in weights]
            shares = [[w / sum(row) for w in row] for row in weights]
            entropy = [-sum(w * math.log2(w) for w in row if w) for row in shares]
            away = [sum(w * abs(q - k) for k, w in enumerate(r)) for q, r in enumerate(shares)]
            wanted = {
                "to no key": sum(rests) / 6,
                "entropy (bits)": sum(entropy) / 6,
                "distance (tokens)": sum(away) / 6,
                "first token": sum(row[0] for row in weights) / 6,
            }
            for name, value in wanted.items():
                assert found[name][head] == pytest.approx(value, abs=1e-5)

    def test_a_query_that_gives_all_to_no_key_counts_for_that_alone(self):
        rows = np.array([[[0, 0], [0, 0.5]]], np.float32)
        found = measures(rows, np.arange(2), ["a", "b"], same=True, sinks=True)
        assert found["to no key"] == pytest.approx([0.75])
        assert found["itself"] == pytest.approx([0.5])
        assert found["entropy (bits)"] == pytest.approx([0])

    def test_there_is_none_without_sinks(self):
        assert "to no key" not in av.heads([record(sinks=False)], TOKENS).measures


class TestNumbers:
    @pytest.mark.parametrize("exact", [True, False])
    def test_carry_the_rest_behind_the_cells(self, exact):
        (layer,) = check_layers(record(), item=1)
        cells = overview(layer, 2, 4, exact=exact)
        assert (cells["rows"], cells["columns"]) == (4, 4)
        assert len(cells["values"]) == (16 + 6) * (4 if exact else 1)
        if exact:
            assert as_matrix(cells).shape == (4, 4)
            assert as_rest(cells) == pytest.approx(record().rest[1, 2].numpy(), abs=1e-6)

    def test_carry_none_without_sinks(self):
        (layer,) = check_layers(record(sinks=False))
        assert as_rest(overview(layer, 0, 6)).size == 0
        assert as_rest(numbers(np.eye(3))).size == 0

    def test_of_a_difference_say_how_much_more(self):
        old, new = check_layers([record(), record(changes={1: av.off})])
        more = as_rest(overview(Difference(old, new), 1, 6))
        assert more == pytest.approx(1 - record().rest[0, 1].numpy(), abs=1e-6)


class TestViews:
    def test_heatmap_has_each_querys_rest(self):
        view = av.heatmap(record(), TOKENS, head=1, item=1)
        assert np.array_equal(view.weights, record().weights[1, 1].numpy())
        rest = record().rest[1, 1].numpy()
        assert as_rest(view.cells) == pytest.approx(rest, abs=1e-6)
        assert on_average(rest) in words(view.figure())

    def test_heads_measures_it_for_all_layers(self, seen):
        view = av.heads(seen, TOKENS, title="three layers")
        found = view.measures["to no key"]
        for one, record_ in zip(found, seen, strict=True):
            assert one == pytest.approx(record_.rest[0].mean(-1).numpy(), abs=1e-6)
        view.order = "to no key"
        said = on_average(torch.stack([r.rest[0] for r in seen]).numpy())
        assert f"three layers: {said}" in words(view.figure())

    def test_flow_says_it_of_layers_that_have_sinks(self, seen):
        view = av.flow(seen, TOKENS)
        assert [layer["sinks"] for layer in view.layers] == [True, False, True]
        assert on_average(seen[0].rest[0].numpy()) in words(view.figure())
        view.heads = [2]
        assert on_average(seen[0].rest[0, 2].numpy()) in words(view.figure())
        view.selection = {"layer": 1}
        assert "no key" not in words(view.figure())

    def test_scrubber_has_it_at_each_step(self, seen):
        view = av.scrubber({0: [seen[0]], 5: [seen[2]], 9: [seen[1]]}, TOKENS)
        sent = np.frombuffer(view.cells["values"], "<f4").reshape(3, 36 + 6)
        for step, one in zip(sent, (seen[0], seen[2], seen[1]), strict=True):
            assert step[:36] == pytest.approx(one.weights[0, 0].numpy().ravel(), abs=1e-6)
            assert step[36:] == pytest.approx(one.rest[0, 0].numpy(), abs=1e-6)
        plain = av.scrubber({0: [seen[1]]}, TOKENS)
        assert len(plain.cells["values"]) == 36 * 4

    @pytest.mark.parametrize("at_once", [2**20, 100])  # all layers at once, or one by one
    def test_overlay_says_it_for_the_query(self, seen, at_once, monkeypatch):
        monkeypatch.setattr("attnviz.views.overlay.AT_ONCE", at_once)
        view = av.overlay(seen, np.zeros((32, 48)), 16, item=1)
        for layer, head, query in [(0, 1, 3), (2, 0, 5)]:
            view.selection = {"layer": layer, "head": head, "query": query}
            share = float(seen[layer].rest[1, head, query])
            assert view._row()[:6] == pytest.approx(
                seen[layer].weights[1, head, query].numpy(), abs=1e-4
            )
            assert view._row()[6] == pytest.approx(share, abs=1e-4)

    def test_overlay_says_it_in_its_figure(self, seen):
        view = av.overlay(seen, np.zeros((32, 48)), 16)
        view.selection = {"layer": 0, "head": 1, "query": 3}
        assert to_no_key(float(seen[0].rest[0, 1, 3])) in words(view.figure())

    def test_overlay_of_a_layer_without_sinks_says_nothing_of_it(self, seen):
        view = av.overlay(seen, np.zeros((32, 48)), 16)
        view.selection = {"layer": 1}
        assert "no key" not in words(view.figure())

    @pytest.mark.parametrize("edited", [False, True])
    def test_scores_divide_by_the_sinks_too(self, edited):
        one = record(changes={1: av.temperature(2.0)} if edited else {})
        view = av.scores(one, TOKENS, head=1)
        view.selection = {"query": 4}
        row, plain = view._shown, record()
        sink = math.exp(torch.linspace(-1, 1, 4)[1])
        powers = [math.exp(float(row.dots[k]) * 8**-0.5) for k in range(5)]
        total = sum(powers) + sink
        assert row.log_sum == pytest.approx(math.log(total), abs=1e-4)
        assert row.softmax == pytest.approx([*(p / total for p in powers), 0], abs=1e-5)
        assert row.softmax == pytest.approx(plain.weights[0, 1, 4].numpy(), abs=1e-5)
        assert row.weights == pytest.approx(one.weights[0, 1, 4].numpy(), abs=1e-6)
        assert row.changed == ("edit" if edited else "")
        assert row.rest == pytest.approx(float(one.rest[0, 1, 4]), abs=1e-6)

    def test_scores_say_it_in_their_figure(self):
        view = av.scores(record(), TOKENS, head=1)
        assert to_no_key(view._shown.rest) in words(view.figure())

    def test_scores_without_sinks_say_nothing_of_it(self):
        view = av.scores(record(sinks=False), TOKENS, head=1)
        assert view._shown.rest is None
