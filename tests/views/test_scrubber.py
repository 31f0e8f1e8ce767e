"""The training scrubber, Python's side: what is sent and answered, its steps, what it refuses."""

import json
import re
import warnings

import numpy as np
import pytest
import torch
import traitlets

import attnviz as av
from attnviz.seeing import AttentionRecord
from attnviz.views.scrubber import AT_ONCE, PAGE, POINTS, ScrubberView, scrubber

TOKENS = ["[CLS]", "the", "cat", "sat", "[SEP]"]
STEPS = [0, 1, 10, 100, 600]
LOSSES = [3 / (1 + i) for i in range(600)]


def attention(*shape, seed=0):
    """Random weights in float32, rows summing to one; the last number is that of the keys."""
    *rows, n_keys = shape
    return np.random.default_rng(seed).dirichlet(np.ones(n_keys), rows).astype("<f4")


def growing(steps=STEPS, layers=2, heads=3, n=5):
    """For each step one array a layer, (batch of 2, head, query, key)."""
    return {
        step: [attention(2, heads, n, n, seed=100 * i + layer) for layer in range(layers)]
        for i, step in enumerate(steps)
    }


def names(n):
    return [f"t{i}" for i in range(n)]


def patch_of(place, n, side):
    """The patch that one of n tokens falls into: their borders are at floor(n · i / side)."""
    return max(i for i in range(side) if n * i // side <= place)


def values_of(cells, values=None):
    """What is sent of a head, as the page reads it: (step, row, column)."""
    values = cells["values"] if values is None else values
    numbers = np.frombuffer(values, "<f4" if cells["exact"] else np.uint8)
    numbers = numbers if cells["exact"] else (numbers / 255) ** 2
    return numbers.reshape(-1, cells["rows"], cells["columns"])


@pytest.fixture(scope="module")
def snapshots():
    return growing()


@pytest.fixture
def view(snapshots):
    return scrubber(snapshots, TOKENS, losses=LOSSES, title="it grows")


@pytest.fixture
def ask(monkeypatch):
    """A function that asks a view as a page does, and returns its answer and its bytes."""

    def ask(view, question):
        said = []
        monkeypatch.setattr(view, "send", lambda *message: said.append(message))
        view._handle_custom_msg({"number": 7, "question": json.loads(json.dumps(question))}, [])
        [(content, *buffers)] = said
        if "error" in content:
            raise RuntimeError(content["error"])
        return content["answer"], buffers[0]

    return ask


class TestWhatIsSent:
    def test_labels_steps_and_layers(self, view):
        assert view.query_tokens == view.key_tokens == TOKENS
        assert view.steps == STEPS
        assert view.layers == [{"name": "", "heads": 3}] * 2
        assert (view.title, view.step) == ("it grows", 0)
        assert view.selection == {"layer": 0, "head": 0, "query": None, "key": None}

    def test_the_first_head_is_there_at_all_steps(self, view, snapshots):
        wanted = np.stack([snapshots[step][0][0, 0] for step in STEPS])
        assert np.array_equal(values_of(view.cells), wanted)

    def test_snapshots_are_shown_in_rising_order_of_steps(self, snapshots):
        mixed = {np.int64(step): snapshots[step] for step in (100, 0, 600, 10, 1)}
        view = scrubber(mixed, TOKENS)
        assert view.steps == STEPS
        assert np.array_equal(values_of(view.cells)[3], snapshots[100][0][0, 0])

    @pytest.mark.parametrize(
        ("n_steps", "n", "side"), [(4, 256, 256), (4, 300, 256), (30, 100, 93)]
    )
    def test_a_head_takes_at_most_a_megabyte_and_keeps_the_largest_weights(self, n_steps, n, side):
        weights = np.full((1, n, n), 0.5 / n, np.float32)
        weights[0, np.arange(n), 7] += 0.5
        view = scrubber({step: [weights] for step in range(n_steps)}, names(n))
        sent = values_of(view.cells)
        assert sent.shape == (n_steps, side, side)
        assert len(view.cells["values"]) <= AT_ONCE
        assert np.allclose(sent.max((1, 2)), weights.max())
        assert (sent.argmax(2) == patch_of(7, n, side)).all()

    def test_item_chooses_from_the_batch(self, snapshots):
        view = scrubber(snapshots, TOKENS, item=1)
        assert np.array_equal(values_of(view.cells)[4], snapshots[600][0][1, 0])

    def test_captures_give_their_names_and_may_be_freed(self, ask):
        def record():
            shape = 1, 2, 5, 4
            return AttentionRecord(
                0, 0, "block", "self", query=torch.randn(shape), key=torch.randn(shape)
            )

        seen = {0: [record()], 50: [record()]}
        wanted = seen[50][0].weights[0, 0].numpy()
        view = scrubber(seen, TOKENS)
        assert view.layers == [{"name": "block", "heads": 2}]
        seen[50][0].free()
        assert np.allclose(values_of(view.cells)[1], wanted)
        assert "image/png" in view._repr_mimebundle_()[0]
        with pytest.raises(RuntimeError, match=r"block\) was freed"):
            ask(view, {"open": [0, 1]})


class TestLosses:
    """losses[i] is the loss of step i + 1."""

    def test_each_snapshot_has_the_loss_of_its_step(self, view):
        assert view.losses == [None, *(LOSSES[step - 1] for step in STEPS[1:])]

    def test_there_may_be_fewer_or_more_of_them_than_steps(self, snapshots):
        assert scrubber(snapshots, TOKENS, losses=[5, 4]).losses == [None, 5, None, None, None]
        longer = scrubber(snapshots, TOKENS, losses=torch.arange(900.0))
        assert longer.losses == [None, 0, 9, 99, 599]
        assert longer.curve["end"] == 900

    def test_without_losses_there_is_no_curve(self, snapshots):
        view = scrubber(snapshots, TOKENS)
        assert view.curve == {}
        assert view.losses == [None] * 5

    def test_the_curve_holds_every_loss(self, view):
        points = np.frombuffer(view.curve["points"], "<f4").reshape(-1, 2)
        assert np.array_equal(points[:, 0], np.arange(600) + 1)
        assert np.allclose(points[:, 1], LOSSES)

    def test_a_long_curve_keeps_its_ends_and_its_peaks(self, snapshots):
        losses = np.random.default_rng(0).random(100_000)
        losses[12_345], losses[54_321] = 9, -9
        curve = scrubber(snapshots, TOKENS, losses=losses).curve
        points = np.frombuffer(curve["points"], "<f4").reshape(-1, 2)
        assert len(points) <= POINTS + 2
        assert (np.diff(points[:, 0]) > 0).all()
        at = dict(points.tolist())
        assert (at[12_346], at[54_322]) == (9, -9)
        assert (min(at), max(at)) == (1, 100_000)
        assert np.allclose([at[1], at[100_000]], losses[[0, -1]])


class TestStepAndSelection:
    def test_a_step_is_set_from_python(self, view):
        view.step = np.int64(100)
        assert view.step == 100
        assert type(view.step) is int  # JSON has no other

    @pytest.mark.parametrize(
        ("step", "error", "message"),
        [
            (2, ValueError, "step must be one of the snapshots, 0, 1, 10, 100, 600, got 2"),
            (-1, ValueError, "got -1"),
            (10.0, TypeError, r"step must be a whole number of steps, got 10\.0"),
            (True, TypeError, "got True"),
            (None, TypeError, "got None"),
        ],
    )
    def test_a_step_that_is_not_there(self, view, step, error, message):
        with pytest.raises(error, match=message):
            view.step = step
        assert view.step == 0

    def test_a_message_names_a_few_of_many_steps(self):
        view = scrubber({step: [attention(1, 2, 2)] for step in range(500)}, names(2))
        with pytest.raises(ValueError, match=r"snapshots, 0, 1, 2, 3, 4, 5, …, 499, got 500"):
            view.step = 500

    @pytest.mark.parametrize(
        ("selection", "message"),
        [
            ({"layer": 2}, r"selection\['layer'\] must be between 0 and 1, got 2"),
            ({"layer": 1, "head": 2}, r"selection\['head'\] must be between 0 and 1, got 2"),
            ({"key": 5}, r"selection\['key'\] must be between 0 and 4, got 5"),
        ],
    )
    def test_what_cannot_be_selected(self, selection, message):
        seen = {step: [attention(3, 5, 5), attention(2, 5, 5)] for step in (0, 1)}
        view = scrubber(seen, TOKENS)
        with pytest.raises(ValueError, match=message):
            view.selection = selection
        assert view.selection["layer"] == view.selection["head"] == 0

    def test_two_views_can_share_both(self, view, snapshots):
        other = scrubber(snapshots, TOKENS)
        for trait in ("step", "selection"):
            traitlets.link((view, trait), (other, trait))
        view.step, view.selection = 10, {"layer": 1, "head": 2, "query": 3}
        assert (other.step, other.selection) == (10, view.selection)


class TestAnswers:
    def test_a_head_is_given_at_all_steps(self, view, snapshots, ask):
        answer, [values] = ask(view, {"open": [1, 2]})
        wanted = np.stack([snapshots[step][1][0, 2] for step in STEPS])
        assert np.array_equal(values_of(answer, values), wanted)

    def test_a_closer_look_is_of_its_head_and_snapshot(self, view, snapshots, ask):
        wanted = snapshots[100][1][0, 2]
        _, [row] = ask(view, {"row": 4, "of": [1, 2], "at": 3})
        assert np.array_equal(np.frombuffer(row, "<f4"), wanted[4])
        _, [cells, _] = ask(view, {"window": [1, 3, 0, 4], "of": [1, 2], "at": 3})
        assert np.array_equal(np.frombuffer(cells, "<f4").reshape(2, 4), wanted[1:3, :4])

    @pytest.mark.parametrize("question", [{"open": [2, 0]}, {"open": [0, 3]}, {"of": [0, 0]}, {}])
    def test_what_cannot_be_answered_is_an_error(self, view, ask, question):
        with pytest.raises(RuntimeError, match=r"."):
            ask(view, question)


class TestSaving:
    def test_a_page_answers_for_every_head_exactly(self, view, snapshots):
        answers = {tuple(q["open"]): values_of(a, v) for q, (a, [v]) in view._page_answers()}
        assert len(answers) == 6
        for (layer, head), cells in answers.items():
            wanted = np.stack([snapshots[step][layer][0, head] for step in STEPS])
            assert np.array_equal(cells, wanted)

    def test_a_page_of_many_heads_is_bounded_and_keeps_the_largest_weights(self, monkeypatch):
        assert PAGE == 20_000_000
        monkeypatch.setattr("attnviz.views.scrubber.PAGE", 200_000)
        n, weights = 64, attention(1, 64, 64)
        weights[0, 5] = np.eye(n)[60]
        seen = [np.broadcast_to(weights, (8, n, n))]
        answers = list(scrubber(dict.fromkeys(range(10), seen), names(n))._page_answers())
        assert 100_000 < sum(len(values) for _, (_, [values]) in answers) <= 200_000
        for _, (answer, [values]) in answers:
            assert not answer["exact"]
            cells = values_of(answer, values)
            row, column = (patch_of(place, n, cells.shape[1]) for place in (5, 60))
            assert (cells.argmax(2)[:, row] == column).all()
            assert (cells.max((1, 2)) == 1).all()

    def test_it_opens_at_the_head_and_step_that_are_shown(self, view, tmp_path):
        view.selection, view.step = {"layer": 1, "head": 2, "query": 3}, 100
        view.selection = {"query": 4}  # the head stays open
        view.save(tmp_path / "view.html")
        page = (tmp_path / "view.html").read_text("utf-8")
        assert "http://" not in page
        assert "https://" not in page
        found = re.search(r'<script type="application/json" id="state">(.*?)</script>', page, re.S)
        state = json.loads(found[1])["state"]
        assert state["selection"] == {"layer": 1, "head": 2, "query": 4, "key": None}
        assert (state["step"], state["live"], state["cells"]) == (100, False, {})

    @pytest.mark.slow
    @pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
    def test_it_can_be_saved_as_a_figure(self, view, tmp_path, ending):
        view.title = "$</svg> \ud800"
        view.save(tmp_path / f"view{ending}")
        assert (tmp_path / f"view{ending}").stat().st_size > 2000

    @pytest.mark.slow
    def test_the_saved_notebook_carries_a_picture(self, view):
        data, _ = view._repr_mimebundle_()
        assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= data.keys()
        assert repr(view) == "ScrubberView(5 snapshots, 2 layers, 5 queries × 5 keys)"
        assert isinstance(view, ScrubberView)


class TestFigure:
    def axes(self, figure):
        """The axes of the matrices, and that of the curve or None."""
        pictures = [ax for ax in figure.axes if ax.images and ax.get_title()]
        curves = [ax for ax in figure.axes if ax.get_ylabel() == "loss"]
        return pictures, curves[0] if curves else None

    def test_it_shows_the_open_head_at_each_step_in_the_same_colours(self, view, snapshots):
        view.selection = {"layer": 1, "head": 2}
        pictures, _ = self.axes(view.figure())
        assert [ax.get_title() for ax in pictures] == [f"step {step}" for step in STEPS]
        most = max(snapshots[step][1][0, 2].max() for step in STEPS)
        for ax, step in zip(pictures, STEPS, strict=True):
            (image,) = ax.images
            assert np.array_equal(image.get_array(), snapshots[step][1][0, 2])
            assert image.get_clim() == (0, pytest.approx(most))

    def test_of_many_snapshots_it_shows_six_with_the_first_and_the_last(self):
        view = scrubber(growing(range(0, 1000, 10)), TOKENS, losses=LOSSES)
        pictures, curve = self.axes(view.figure())
        titles = [ax.get_title() for ax in pictures]
        assert len(titles) == 6
        assert (titles[0], titles[-1]) == ("step 0", "step 990")
        assert len([line for line in curve.lines if line.get_linestyle() == "--"]) == 6

    def test_the_queries_are_named_once_and_the_keys_each_time(self, view):
        pictures, _ = self.axes(view.figure())
        for i, ax in enumerate(pictures):
            assert [t.get_text() for t in ax.get_xticklabels()] == TOKENS
            assert [t.get_text() for t in ax.get_yticklabels()] == (TOKENS if i == 0 else [])

    @pytest.mark.slow
    def test_the_curve_has_every_loss_and_is_left_out_without_any(self, view, snapshots):
        _, curve = self.axes(view.figure())
        assert np.array_equal(curve.lines[0].get_ydata(), LOSSES)
        assert curve.lines[0].get_xdata()[0] == 1
        assert self.axes(scrubber(snapshots, TOKENS).figure())[1] is None

    def test_a_long_title_is_broken_into_lines(self, view):
        view.title = 20 * "a model that learns "
        (title,) = [t.get_text() for part in view.figure().subfigs[:1] for t in part.texts]
        *lines, last = title.split("\n")
        assert last == "layer 0, head 0"
        assert len(lines) > 1
        assert " ".join(lines) == view.title.strip()

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("steps", "queries", "keys"), [([0], 1, 1), ([0, 7], 5, 30), (range(6), 90, 90)]
    )
    def test_every_size_has_room(self, steps, queries, keys):
        seen = {step: [attention(1, queries, keys)] for step in steps}
        view = scrubber(seen, names(queries), names(keys), losses=[1.0])
        figure = view.figure()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as of a layout that collapsed
            figure.draw_without_rendering()
        assert max(figure.get_size_inches()) < 16


class TestBadInput:
    @pytest.mark.parametrize(
        ("snapshots", "error", "message"),
        [
            ({}, ValueError, "snapshots must be a dict from the number of steps.*got none"),
            ([1], TypeError, "snapshots must be a dict from the number of steps.*got list"),
            (None, TypeError, "got NoneType"),
            ({"10": [attention(1, 5, 5)]}, TypeError, "must be a whole number of steps, got '10'"),
            ({0.5: [attention(1, 5, 5)]}, TypeError, r"must be a whole number of steps, got 0\.5"),
            ({True: [attention(1, 5, 5)]}, TypeError, "must be a whole number of steps, got True"),
            ({-1: [attention(1, 5, 5)]}, ValueError, "must be at least 0 steps, got -1"),
            ({0: [attention(1, 5, 5)], 9: None}, TypeError, r"snapshots\[9\]: .*got None"),
            ({9: attention(1, 5, 5)}, TypeError, r"snapshots\[9\]: .*write \[array\]"),
            ({9: []}, ValueError, r"snapshots\[9\]: .*got none"),
            ({0: [np.ones((1, 5, 5))]}, ValueError, r"sum to 1.*\(head 0 of a layer\)"),
        ],
    )
    def test_what_is_no_dict_of_attention(self, snapshots, error, message):
        with pytest.raises(error, match=message):
            scrubber(snapshots, TOKENS)

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ([attention(3, 5, 5)], "1 layer of 3 heads with 5 × 5 weights"),
            ([attention(2, 5, 5)] * 2, "2 layers of 2 heads with 5 × 5 weights"),
            ([attention(3, 5, 5), attention(2, 5, 5)], r"2 layers of \[3, 2\] heads with"),
            ([attention(3, 6, 6)] * 2, "2 layers of 3 heads with 6 × 6 weights"),
        ],
    )
    def test_snapshots_that_differ_are_named(self, snapshots, other, message):
        wanted = r"same layers, heads and sizes, but snapshots\[0\] has 2 layers of 3 heads with"
        with pytest.raises(
            ValueError, match=rf"{wanted} 5 × 5 weights and snapshots\[7\] {message}"
        ):
            scrubber({**snapshots, 7: other}, TOKENS)

    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            ((TOKENS[:4],), ValueError, "tokens must have one label for each of the 5.*got 4"),
            ((TOKENS, TOKENS[:4]), ValueError, "key_tokens must have"),
            (("abcde",), TypeError, "tokens must be a list of strings"),
        ],
    )
    def test_labels_that_do_not_fit(self, snapshots, labels, error, message):
        with pytest.raises(error, match=message):
            scrubber(snapshots, *labels)

    @pytest.mark.parametrize(
        ("losses", "error", "message"),
        [
            ([1, np.nan], ValueError, r"losses must be finite, got nan at losses\[1\]"),
            ([np.inf], ValueError, "got inf"),
            (["1.0"], TypeError, "losses must be a list with one number for each step, got list"),
            ([None, 1], TypeError, "losses must be"),
            ([1, [2, 3]], TypeError, "losses must be"),
            ([[1, 2]], ValueError, r"losses must be .*got shape \(1, 2\)"),
            (1.5, ValueError, r"losses must be .*got shape \(\)"),
            (None, TypeError, "losses must be .*got NoneType"),
        ],
    )
    def test_losses_that_are_no_finite_numbers(self, snapshots, losses, error, message):
        with pytest.raises(error, match=message):
            scrubber(snapshots, TOKENS, losses=losses)

    @pytest.mark.parametrize(
        ("item", "error"), [(2, IndexError), (-1, IndexError), ("a", TypeError)]
    )
    def test_an_item_that_is_not_there(self, snapshots, item, error):
        with pytest.raises(error, match=r"snapshots\[0\]: item must be"):
            scrubber(snapshots, TOKENS, item=item)


def test_it_is_a_public_name():
    assert av.scrubber is scrubber
    assert av.ScrubberView is ScrubberView
