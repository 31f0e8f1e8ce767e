"""All heads made small: exact where there is time for it, else a sample that gets better."""

import numpy as np
import pytest

from attnviz.views import thumbnails as module
from attnviz.views.source import check_layers
from attnviz.views.thumbnails import BYTES, SIDE, Thumbnails


def make_layers(heads=(2, 3), n=10, n_keys=None):
    rng = np.random.default_rng(0)
    arrays = [rng.dirichlet(np.full(n_keys or n, 0.2), (h, n)).astype(np.float32) for h in heads]
    return check_layers(arrays), np.concatenate(arrays)


def shrink(heads, size):
    """The largest of each patch, patch by patch."""
    rows, columns = (np.arange(s + 1) * n // s for s, n in zip(size, heads.shape[1:], strict=True))
    result = np.zeros((len(heads), *size))
    for i in range(size[0]):
        for j in range(size[1]):
            patch = heads[:, rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            result[:, i, j] = patch.max((1, 2))
    return result


def finish(small):
    while small.left:
        small.read_piece()


class TestExact:
    @pytest.mark.parametrize("n", [1, 2, 10, SIDE])
    def test_short_texts_are_shown_weight_by_weight(self, n):
        layers, whole = make_layers(n=n)
        small = Thumbnails(layers)
        assert (small.size, small.step, small.left) == ((n, n), 1, 0)
        assert np.abs(small.roots / 255 - np.sqrt(whole)).max() <= 0.5 / 255 + 1e-6

    @pytest.mark.parametrize("shape", [(SIDE + 1, SIDE + 1), (130, 100), (100, 7), (7, 100)])
    def test_of_longer_ones_the_largest_of_each_patch(self, shape):
        layers, whole = make_layers(n=shape[0], n_keys=shape[1])
        small = Thumbnails(layers)
        assert small.size == tuple(min(SIDE, n) for n in shape)
        found = (small.roots / 255) ** 2
        assert np.abs(found - shrink(whole, small.size)).max() < 0.004

    def test_as_weights_layer_by_layer(self):
        layers, whole = make_layers((2, 3, 1))
        weights = Thumbnails(layers).weights
        assert [len(heads) for heads in weights] == [2, 3, 1]
        assert np.abs(np.concatenate(weights) - whole).max() < 0.004

    def test_as_they_go_to_the_page(self):
        layers, _ = make_layers()
        small = Thumbnails(layers)
        sent = small.numbers()
        assert (sent["rows"], sent["columns"], sent["exact"]) == (10, 10, False)
        assert sent["values"] == small.roots.tobytes()

    def test_of_many_heads_they_are_smaller(self):
        layers, _ = make_layers((16,) * 24, n=70)
        small = Thumbnails(layers)
        assert small.size == (29, 29)
        assert len(small.numbers()["values"]) <= BYTES

    def test_a_head_that_attends_to_nothing(self):
        layers = check_layers([np.zeros((1, 3, 3))])
        assert not Thumbnails(layers).roots.any()

    def test_the_measure_hears_of_all_rows(self):
        layers, whole = make_layers()
        heard = []
        Thumbnails(layers, lambda rows, places: heard.append((rows, places.tolist())))
        assert [places for _, places in heard] == [list(range(10))] * 2
        assert np.array_equal(np.concatenate([rows for rows, _ in heard]), whole)


class TestSampled:
    @pytest.fixture(autouse=True)
    def little(self, monkeypatch):
        monkeypatch.setattr(module, "SAMPLED", 8)
        monkeypatch.setattr(module, "AT_ONCE", 100)
        monkeypatch.setattr(module, "BLOCK", 200)

    @pytest.mark.parametrize("n", [24, 31, 50, 63])
    def test_at_first_each_patch_shows_some_of_its_queries(self, n):
        layers, whole = make_layers(n=n)
        heard = []
        small = Thumbnails(layers, lambda rows, places: heard.append(places))
        assert small.step == n // 8 > 1
        assert small.left > 1
        sampled = np.zeros_like(whole)
        sampled[:, heard[0]] = whole[:, heard[0]]
        patches = np.searchsorted(np.arange(9) * n // 8, heard[0], "right") - 1
        assert set(patches) == set(range(8))
        assert np.abs((small.roots / 255) ** 2 - shrink(sampled, (8, 8))).max() < 0.004

    @pytest.mark.parametrize("n", [24, 31, 50, 63])
    def test_piece_by_piece_they_get_exact(self, n):
        layers, whole = make_layers(n=n)
        small = Thumbnails(layers)
        page = small.roots.copy()
        left = small.left
        while small.left:
            place, data = small.read_piece()
            assert small.left == left - 1
            left = small.left
            piece = np.frombuffer(data, np.uint8).reshape(
                place["heads"], place["end"] - place["first"], 8
            )
            heads = slice(place["start"], place["start"] + place["heads"])
            page[heads, place["first"] : place["end"]] = piece
        assert np.array_equal(page, small.roots)
        assert np.abs((page / 255) ** 2 - shrink(whole, (8, 8))).max() < 0.004
        assert small.step == 1

    def test_a_piece_holds_few_weights(self, monkeypatch):
        layers, _ = make_layers((2, 3), n=50)
        read = []
        rows = type(layers[0]).rows

        def listen(layer, heads, queries):
            found = rows(layer, heads, queries)
            read.append(found.size)
            return found

        small = Thumbnails(layers)
        monkeypatch.setattr(type(layers[0]), "rows", listen)
        monkeypatch.setattr("attnviz.views.source.BLOCK", 200)
        finish(small)
        assert max(read) <= 200
        assert sum(read) == 5 * 50 * 50
