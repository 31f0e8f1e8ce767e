"""Matplotlib pictures: the same numbers, labels and colours as the widget's."""

import base64
import re

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import attnviz as av
from attnviz.views.figures import palette

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


class TestPlotHeatmap:
    def test_shows_the_matrix_with_its_labels(self):
        weights = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
        ax = av.plot_heatmap(weights, ["q1", "q2"], ["a", "b", "c"], title="layer 1")
        assert np.allclose(ax.images[0].get_array(), weights)
        assert (labels(ax.yaxis), labels(ax.xaxis)) == (["q1", "q2"], ["a", "b", "c"])
        assert ax.get_title() == "layer 1"
        assert ax.get_xlabel().startswith("key")
        assert ax.get_ylabel().startswith("query")
        assert ax.xaxis.get_ticks_position() == "top"

    def test_a_single_query_over_many_keys_stays_visible(self):
        ax = av.plot_heatmap(np.full((1, 500), 1 / 500), ["q"], [str(i) for i in range(500)])
        ax.figure.canvas.draw()
        assert ax.get_window_extent().height > 10  # pixels
        assert ax.get_window_extent().width > 500

    def test_cells_of_square_matrices_are_square(self):
        ax = av.plot_heatmap(np.eye(9), list("abcdefghi"))
        ax.figure.canvas.draw()
        assert ax.get_window_extent().width == pytest.approx(ax.get_window_extent().height)

    def test_colours_run_from_zero_to_the_largest_weight(self):
        ax = av.plot_heatmap([[0.25, 0.75]], ["q"], ["a", "b"])
        assert ax.images[0].get_clim() == (0, 0.75)

    def test_colours_are_those_of_the_widget(self):
        ax = av.plot_heatmap([[0.0, 1.0]], ["q"], ["a", "b"])
        lightest = ax.images[0].to_rgba(np.array([1.0]), bytes=True)[0, :3]
        assert bytes(lightest) == palette()[-3:]

    def test_draws_into_given_axes_and_opens_no_other_figure(self):
        ax = Figure().add_subplot()
        assert av.plot_heatmap(np.eye(2), ["a", "b"], ax=ax) is ax
        assert plt.get_fignums() == []

    def test_many_labels_are_thinned_out(self):
        ax = av.plot_heatmap(np.eye(300), [str(i) for i in range(300)])
        for axis in (ax.xaxis, ax.yaxis):
            assert 10 < len(labels(axis)) < 60
            assert labels(axis) == [str(i) for i in axis.get_ticklocs()]

    def test_dollars_are_no_formulas(self):
        ax = av.plot_heatmap(np.eye(2), ["$", "$x$"])
        ax.figure.canvas.draw()  # would raise while parsing "$"
        assert labels(ax.xaxis)[0] == r"\$"

    def test_all_zero_weights_can_be_drawn(self):
        av.plot_heatmap(np.zeros((2, 2)), ["a", "b"]).figure.canvas.draw()


class TestShow:
    def test_the_page_carries_picture_caption_and_description(self, monkeypatch):
        shown = []
        monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
        figure = plt.figure()
        av.show(figure, caption="Rows sum to <1>.", alt='A "heatmap"')
        assert 'alt="A &quot;heatmap&quot;"' in shown[0]["text/html"]
        assert "<figcaption>Rows sum to &lt;1&gt;.</figcaption>" in shown[0]["text/html"]
        assert "data:image/png;base64," in shown[0]["text/html"]
        assert plt.get_fignums() == []
        data = re.search(r"base64,([^\"]+)", shown[0]["text/html"])[1]
        width = int.from_bytes(base64.b64decode(data)[16:20], "big")
        assert width == 150 * figure.get_figwidth()  # sharp on fine screens too

    @pytest.mark.parametrize(("caption", "alt"), [("", "x"), ("x", "  ")])
    def test_neither_may_be_missing(self, caption, alt):
        with pytest.raises(ValueError, match="must say something"):
            av.show(plt.figure(), caption, alt)
