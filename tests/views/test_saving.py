"""Saving a view: nothing of the reader's is lost, and the page holds all that it needs."""

import gzip
import json
import os
import re
import stat
from base64 import b64decode
from html import unescape

import numpy as np
import pytest
from matplotlib.figure import Figure

import attnviz as av
from attnviz.views.saving import write

ENDINGS = [".html", ".png", ".svg", ".pdf"]
TOKENS = ["[CLS]", "the", "cat", "[SEP]"]
REAL = {".html": b"<!doctype html>", ".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--",
    "]]>",
    "\ud800",
    "\u2028",
    "'\"`${1}\\",
    "{title}",
    "猫",
]


def uniform(n):
    return np.full((n, n), 1 / n)


def a_heatmap():
    return av.heatmap(uniform(4), TOKENS, title="a heatmap")


def some_heads():
    return av.heads([np.tile(uniform(4), (3, 1, 1))] * 2, TOKENS, title="some heads")


def page():
    return '<!doctype html><meta name="generator" content="attnviz">'


def figure():
    return Figure()


def break_down():
    raise RuntimeError("half-way")


def parts_of(text):
    """What a page's script reads: its state, its answers, and the bytes."""
    found = re.search(r'<script type="application/json" id="state">(.*?)</script>', text, re.S)
    packed = re.search(r'<script type="text/plain" id="bytes">(.*?)</script>', text, re.S)
    content = json.loads(found[1])
    return content["state"], content["answers"], gzip.decompress(b64decode(packed[1]))


class TestWhatIsThereAlready:
    @pytest.mark.slow
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_its_own_files_are_replaced(self, tmp_path, ending):
        path = tmp_path / f"view{ending}"
        a_heatmap().save(path)
        path.write_bytes(path.read_bytes() + b" ")
        before = path.read_bytes()
        some_heads().save(path)
        assert path.read_bytes() != before
        assert os.listdir(tmp_path) == [path.name]

    @pytest.mark.parametrize("ending", ENDINGS)
    @pytest.mark.parametrize(
        "content", [b"", b"mine", b"<p>made with attnviz</p>", b"\x89PNG attnviz", b"\xff\xfe"]
    )
    def test_another_ones_file_stays(self, tmp_path, ending, content):
        path = tmp_path / f"view{ending}"
        path.write_bytes(content)
        with pytest.raises(FileExistsError, match=r"none of attnviz's: choose another"):
            a_heatmap().save(path)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == [path.name]

    @pytest.mark.slow
    def test_a_figure_that_matplotlib_saved_is_another_ones(self, tmp_path):
        for ending in (".png", ".svg", ".pdf"):
            path = tmp_path / f"attnviz{ending}"
            figure = a_heatmap().figure()
            figure.suptitle("attnviz")
            figure.savefig(path)
            with pytest.raises(FileExistsError):
                a_heatmap().save(path)

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_an_error_half_way_leaves_the_old_file_and_nothing_else(self, tmp_path, ending):
        path = tmp_path / f"view{ending}"
        write(path, page, figure)
        before = path.read_bytes()
        with pytest.raises(RuntimeError, match="half-way"):
            write(path, break_down, break_down)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == [path.name]

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_an_error_with_no_old_file_leaves_none(self, tmp_path, ending):
        with pytest.raises(RuntimeError, match="half-way"):
            write(tmp_path / f"view{ending}", break_down, break_down)
        assert os.listdir(tmp_path) == []

    def test_the_old_file_is_there_until_the_new_one_is_complete(self, tmp_path):
        path = tmp_path / "view.html"
        write(path, page, figure)
        write(path, lambda: path.read_text() + " and more", figure)
        assert path.read_text() == page() + " and more"

    def test_others_may_read_it_as_they_may_any_file(self, tmp_path):
        a_heatmap().save(tmp_path / "view.html")
        (tmp_path / "plain").write_text("")
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        assert len(modes) == 1


class TestWhatCannotBeSaved:
    @pytest.mark.parametrize("name", ["view", "view.jpg", "view.html.gz", ".html", "view.htm"])
    def test_another_ending(self, tmp_path, name):
        with pytest.raises(ValueError, match=r"path must end in \.html, \.png, \.svg or \.pdf, go"):
            a_heatmap().save(tmp_path / name)
        assert os.listdir(tmp_path) == []

    def test_into_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no folder '.*missing' to save in"):
            a_heatmap().save(tmp_path / "missing" / "view.html")

    def test_over_a_folder(self, tmp_path):
        (tmp_path / "view.html").mkdir()
        with pytest.raises(OSError, match=r"view\.html"):
            a_heatmap().save(tmp_path / "view.html")


@pytest.mark.parametrize("make", [a_heatmap, some_heads])
class TestFigures:
    @pytest.mark.slow
    @pytest.mark.parametrize("ending", ENDINGS)
    @pytest.mark.parametrize("upper", [False, True])
    def test_each_kind_is_what_its_ending_says(self, tmp_path, make, ending, upper):
        path = tmp_path / f"view{ending.upper() if upper else ending}"
        make().save(str(path))
        assert path.read_bytes().startswith(REAL[ending])
        assert path.stat().st_size > 2000

    def test_the_title_is_in_the_picture(self, tmp_path, make):
        view = make()
        assert view.figure().axes[0].get_title() == view.title

    @pytest.mark.slow
    def test_hostile_labels_spoil_no_figure(self, tmp_path, make):
        view = make()
        view.title = "$</svg> \ud800"
        for ending in (".png", ".svg", ".pdf"):
            view.save(tmp_path / f"view{ending}")
            assert (tmp_path / f"view{ending}").read_bytes().startswith(REAL[ending])


class TestPage:
    @pytest.fixture(params=[a_heatmap, some_heads])
    def view(self, request):
        return request.param()

    @pytest.fixture
    def save(self, tmp_path):
        def save(view):
            view.save(tmp_path / "view.html")
            return (tmp_path / "view.html").read_text("utf-8")

        return save

    def test_it_needs_no_network_and_no_other_file(self, view, save):
        text = save(view)
        assert "http://" not in text
        assert "https://" not in text
        assert not re.search(r"^\s*import\b|\bimport\s*\(|^export\b", text, re.M)
        assert not re.search(r"\b(?:src|href)=|url\(|@import", text)

    @pytest.mark.parametrize("hostile", HOSTILE)
    def test_labels_end_no_element_and_arrive_unchanged(self, save, hostile):
        view = av.heatmap(uniform(4), [hostile, *TOKENS[1:]], title=hostile)
        text = save(view)
        assert text.count("<script") == text.count("</script>") == 3
        assert text.count("<!--") == 0
        state, *_ = parts_of(text)
        assert state["query_tokens"][0] == state["title"] == hostile
        title = unescape(re.search("<title>(.*?)</title>", text, re.S)[1])
        assert title == hostile.replace("\ud800", "U+D800")

    def test_hostile_labels_of_heads(self, save):
        weights = [np.tile(uniform(len(HOSTILE)), (2, 1, 1))]
        text = save(av.heads(weights, HOSTILE, title=HOSTILE[0]))
        assert text.count("<script") == text.count("</script>") == 3
        assert parts_of(text)[0]["query_tokens"] == HOSTILE

    def test_a_page_without_a_title_still_has_one(self, save):
        assert "<title>Attention</title>" in save(av.heatmap(uniform(4), TOKENS))

    def test_it_holds_the_exact_numbers(self, save):
        weights = np.random.default_rng(0).dirichlet(np.ones(4), 4).astype("<f4")
        state, answers, data = parts_of(save(av.heatmap(weights, TOKENS)))
        cells = state["cells"]
        assert data[slice(*cells["values"]["bytes"])] == weights.tobytes()
        assert (cells["rows"], cells["columns"], cells["exact"]) == (4, 4, True)
        assert len(data[slice(*state["palette"]["bytes"])]) == 768
        assert answers == []

    def test_it_shows_what_is_selected(self, view, save):
        view.selection = {**view.selection, "query": 2, "key": 1}
        view.scale, view.threshold = "log", 0.25
        state, *_ = parts_of(save(view))
        assert state["selection"] == view.selection
        assert (state["scale"], state["threshold"]) == ("log", 0.25)

    def test_it_holds_every_head(self, save):
        weights = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3, 4)).astype("<f4")
        _, answers, data = parts_of(save(av.heads(list(weights), TOKENS)))
        assert [q for q, *_ in answers] == [{"open": [i, j]} for i in range(2) for j in range(3)]
        for question, answer, [place] in answers:
            layer, head = question["open"]
            assert answer == {"rows": 4, "columns": 4, "exact": True}
            assert data[slice(*place)] == weights[layer, head].tobytes()

    @pytest.mark.parametrize("n", [10, 44, 45, 130])
    def test_thumbnails_have_at_most_44_patches_a_side_and_keep_the_largest(self, save, n):
        weights = np.full((2, n, n), 0.5 / n, np.float32)
        weights[:, :, -1] += 0.5
        weights[1, n // 3] = np.eye(n)[n // 2]
        state, _, data = parts_of(save(av.heads([weights], [str(i) for i in range(n)])))
        sent, side = state["thumbnails"], min(n, 44)
        assert (sent["rows"], sent["columns"], state["sampled"]) == (side, side, 1)
        roots = np.frombuffer(data[slice(*sent["values"]["bytes"])], np.uint8)
        strong = np.argwhere(roots.reshape(2, side, side) == 255)
        assert len(strong) == 1
        assert strong[0] == pytest.approx([1, n // 3 * side / n, n // 2 * side / n], abs=1)

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [513, 1100, 2100])
    def test_a_long_heatmap_holds_at_most_2048_patches_a_side(self, save, n):
        tokens = [str(i) for i in range(n)]
        state, _, data = parts_of(save(av.heatmap(uniform(n), tokens)))
        cells = state["cells"]
        assert cells["rows"] == cells["columns"] == min(n, 2048)
        assert not cells["exact"]
        roots = np.frombuffer(data[slice(*cells["values"]["bytes"])], np.uint8)
        assert roots.size == min(n, 2048) ** 2
        assert abs((roots / 255) ** 2 - 1 / n).max() <= 0.004
