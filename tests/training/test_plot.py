"""The live plot of the loss: what it shows, how often, and to whom."""

import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from attnviz.training import History
from attnviz.training.plot import LivePlot, _html


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are drawn, instead of their pictures."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    return figures


@pytest.fixture
def notebook(monkeypatch):
    """What a notebook would have shown, and a clock that is set by hand."""
    shown = []

    def display(data, raw, display_id):
        shown.append(data["text/html"])
        return SimpleNamespace(update=lambda data, raw: shown.append(data["text/html"]))

    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("attnviz.training.plot.time", clock)
    return SimpleNamespace(shown=shown, clock=clock)


class TestPicture:
    def test_it_is_an_image_that_says_what_it_shows(self):
        html = _html(History(losses=[3.5, 2.0, 1.0]), {})
        assert 'alt="Loss over 3 training steps, from 3.50 to ' in html
        assert re.search(r'src="data:image/png;base64,iVBOR[\w+/=]{1000,}"', html)

    def test_the_more_steps_the_more_points_up_to_a_limit(self, drawn):
        lengths = [1, 2, 10, 300, 400, 401, 5000, 100_000]
        for n in lengths:
            assert f"Loss over {n} training steps" in _html(History(losses=[1.0] * n), {})
        points = [len(figure.axes[0].lines[1].get_xdata()) for figure in drawn]
        assert points == [1, 2, 10, 300, 400, 400, 400, 400]

    def test_the_first_and_the_last_step_are_always_there(self, drawn):
        losses = np.random.default_rng(0).random(1234).tolist()
        _html(History(losses=losses), {})
        each, _ = drawn[0].axes[0].lines
        assert each.get_xdata()[0] == 1
        assert each.get_xdata()[-1] == 1234
        for step, loss in zip(each.get_xdata(), each.get_ydata(), strict=True):
            assert loss == losses[step - 1]

    def test_the_second_curve_is_the_mean_of_the_last_fiftieth(self, drawn):
        losses = np.random.default_rng(0).random(300).tolist()
        _html(History(losses=losses), {})
        _, smooth = drawn[0].axes[0].lines
        for i, value in enumerate(smooth.get_ydata()):
            assert value == pytest.approx(np.mean(losses[max(0, i - 6) : i + 1]))

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("losses", [[-2.0, -5.0], [0.0, 0.0], [4.0, -1.0], [2.0, 1.0]])
    def test_the_whole_curve_is_inside_also_below_zero(self, drawn, losses):
        _html(History(losses=losses), {})
        low, high = drawn[0].axes[0].get_ylim()
        _, smooth = drawn[0].axes[0].lines
        assert low <= 0 <= high
        assert low <= min(smooth.get_ydata()) <= max(smooth.get_ydata()) <= high
        assert low < high

    def test_losses_to_compare_with_are_dotted_named_and_inside(self, drawn):
        html = _html(History(losses=[3.0, 2.0]), {"guessing < frequencies": 8.3, "a bound": 1.5})
        ax = drawn[0].axes[0]
        dotted = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]
        assert dotted == [8.3, 1.5]
        assert [text.get_text() for text in ax.texts] == ["guessing < frequencies", "a bound"]
        assert ax.get_ylim()[1] > 8.3
        assert "Dotted: guessing &lt; frequencies, 8.30. Dotted: a bound, 1.50." in html


class TestLivePlot:
    @pytest.mark.slow
    def test_it_is_renewed_every_two_seconds_and_at_the_end(self, notebook):
        plot, history = LivePlot(True), History()
        for now in (1.0, 2.1, 3.0, 4.2):
            notebook.clock.now = now
            history.losses.append(1.0)
            plot.show(history)
        history.losses.append(1.0)
        plot.close(history)
        steps = [int(re.search(r"over (\d+)", html)[1]) for html in notebook.shown]
        assert steps == [2, 4, 5]

    def test_pictures_take_no_more_than_a_fiftieth_of_the_time(self, notebook, monkeypatch):
        def slowly(history, marks):
            notebook.clock.now += 0.1
            return f"at {notebook.clock.now:.1f}"

        monkeypatch.setattr("attnviz.training.plot._html", slowly)
        plot = LivePlot(True)
        for now in (2.1, 4.5, 7.0, 7.2, 12.0, 12.3):
            notebook.clock.now = now
            plot.show(History(losses=[1.0]))
        assert notebook.shown == ["at 2.2", "at 7.3", "at 12.4"]

    def test_a_training_that_was_short_shows_nothing(self, notebook):
        plot = LivePlot(True)
        plot.show(History(losses=[1.0]))
        plot.close(History(losses=[1.0]))
        assert notebook.shown == []

    def test_one_that_is_not_wanted_shows_nothing(self, notebook):
        plot = LivePlot(False)
        notebook.clock.now = 9.0
        plot.show(History(losses=[1.0]))
        plot.close(History(losses=[1.0]))
        assert notebook.shown == []

    def test_outside_a_notebook_it_shows_nothing(self, notebook, monkeypatch):
        monkeypatch.delitem(sys.modules, "ipykernel")
        plot = LivePlot(True)
        notebook.clock.now = 9.0
        plot.show(History(losses=[1.0]))
        assert notebook.shown == []
