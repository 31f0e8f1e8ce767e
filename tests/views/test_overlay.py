"""The overlay's Python side: what it takes, what it sends and answers, its figure and pages."""

import base64
import gzip
import io
import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

import transformers as hf

import attnviz as av
from attnviz.views import overlay as overlay_module
from attnviz.views.overlay import overlay

NOTHING = {"layer": None, "head": None, "query": None, "key": None}


def attention(n_queries, n_keys, layers=2, heads=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(n_keys), (heads, n_queries)) for _ in range(layers)]


def picture(height=32, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sent_picture(view):
    return np.asarray(Image.open(io.BytesIO(view.picture)))


def rows_of(values, n_keys):
    return np.frombuffer(values, "<u2").reshape(-1, n_keys) / 65535


@pytest.fixture
def weights():
    return attention(7, 7)  # [CLS] and 2 × 3 patches


@pytest.fixture
def view(weights):
    return overlay(weights, picture(), title="A picture")


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    config = hf.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
        image_size=32, patch_size=8,
    )  # fmt: skip
    return hf.ViTModel(config, add_pooling_layer=False).eval()


@pytest.fixture
def seen(vit):
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with av.capture(vit) as seen, torch.no_grad():
        vit(pixel_values=pixels)
    return seen


class TestWhatIsSent:
    def test_the_first_query_in_all_layers_and_heads(self, view, weights):
        assert (view.rows["query"], view.rows["layer"]) == (0, None)
        wanted = np.concatenate([layer[:, 0] for layer in weights])
        assert np.abs(rows_of(view.rows["values"], 7) - wanted).max() <= 0.5 / 65535 + 1e-7

    def test_the_grid(self, view):
        size = {"rows": 2, "columns": 3, "extra": 1, "height": 32, "width": 48}
        assert view.grid == {**size, "first": 0}
        assert view.layers == [{"name": "", "heads": 3, "sinks": False}] * 2
        assert view.tokens == []
        assert view.title == "A picture"

    def test_without_cls_the_middle_patch_asks_first(self):
        weights = attention(6, 6)
        view = overlay(weights, picture())
        assert (view.grid["extra"], view.grid["first"], view.rows["query"]) == (0, 4, 4)
        assert np.allclose(rows_of(view.rows["values"], 6)[0], weights[0][0, 4], atol=1e-5)

    @pytest.mark.parametrize("extra", [2, 5, 16])
    def test_tokens_before_the_patches(self, extra):
        view = overlay(attention(6 + extra, 6 + extra), picture())
        assert (view.grid["extra"], view.grid["first"]) == (extra, 0)

    def test_patches_that_are_not_square(self):
        view = overlay(attention(13, 13), picture(), (8, 16))
        assert (view.grid["rows"], view.grid["columns"]) == (4, 3)

    def test_layers_may_have_different_numbers_of_heads(self):
        view = overlay([*attention(7, 7, 1, 3), *attention(7, 7, 1, 2)], picture())
        assert [layer["heads"] for layer in view.layers] == [3, 2]
        view.selection = {"layer": 1, "head": 2}  # of the other layer: the mean is shown
        assert "mean of 2 heads" in view.figure().axes[0].get_title()

    def test_a_vision_transformer_sends_57_kilobytes_of_weights(self):
        view = overlay(attention(197, 197, 12, 12), np.zeros((224, 224)))
        assert len(view.rows["values"]) == 12 * 12 * 197 * 2

    def test_at_most_two_megabytes_before_the_first_question(self):
        noise = picture(1024, 1024)
        view = overlay(attention(1, 4096, 2, 128), noise, tokens=["a"])
        assert view.one_layer
        assert (view.rows["query"], view.rows["layer"]) == (0, 1)
        assert len(view.rows["values"]) == 2**20
        assert len(view.picture) + len(view.rows["values"]) < 2**21

    def test_one_weight_more_is_too_much(self):
        with pytest.raises(ValueError, match=r"129 heads with 4096 keys.*at most 524288 weights"):
            overlay(attention(1, 4096, 1, 129), picture(1024, 1024), tokens=["a"])

    def test_the_browser_side_needs_no_network(self, view):
        assert "http" not in view._esm
        assert "http" not in view._css
        assert "import " not in view._esm

    def test_each_style_stays_inside_the_view(self, view):
        assert all(
            line.startswith(".attnviz")
            for line in overlay_module.style("overlay").split("\n")
            if line
        )


FORMS = {
    "grey": lambda p: p[:, :, 0],
    "grey with an axis": lambda p: p[:, :, :1],
    "grey tensor": lambda p: torch.from_numpy(p[:, :, 0].copy())[None],
    "tensor as models take it": lambda p: torch.from_numpy(p.copy()).permute(2, 0, 1) / 255,
    "double precision": lambda p: (torch.from_numpy(p.copy()) / 255).double(),
    "float array": lambda p: p / 255,
    "hardly beyond 1": lambda p: p / 255 * 1.0002,
    "hardly below 0": lambda p: p / 255 * 1.001 - 0.0005,
    "nested lists": lambda p: (p / 255).tolist(),
    "needs a gradient": lambda p: (torch.from_numpy(p.copy()) / 255).requires_grad_(),
    "PIL": Image.fromarray,
}


RED_AND_BLUE = Image.new("RGB", (48, 32), (255, 0, 0))
RED_AND_BLUE.paste((0, 0, 255), (24, 0, 48, 32))
MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
MODES += ["LAB"]


def in_mode(mode):
    """A picture that is red on its left and blue on its right."""
    if mode == "LAB":
        spaces = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        return ImageCms.profileToProfile(RED_AND_BLUE, *spaces, outputMode="LAB")
    steps = {"La": ["LA", "La"], "RGBa": ["RGBA", "RGBa"], "PA": ["P", "PA"]}
    image = RED_AND_BLUE
    for step in steps.get(mode, [mode]):
        image = image.convert(step)
    return image.copy()


class TestTheImage:
    def test_is_sent_as_it_is_up_to_512_pixels(self, view):
        assert np.array_equal(sent_picture(view), picture())

    @pytest.mark.parametrize(("size", "sent"), [((1024, 768), (512, 384)), ((16, 1040), (8, 512))])
    def test_is_shrunk_beyond(self, size, sent):
        rows, columns = size[0] // 16, size[1] // 16
        view = overlay(attention(1, rows * columns, 1, 1), picture(*size), tokens=["a"])
        assert sent_picture(view).shape == (*sent, 3)
        assert (view.grid["height"], view.grid["width"]) == size

    def test_is_averaged_by_area(self):
        stripes = np.zeros((1024, 1024, 3), np.uint8)
        stripes[::2] = 200
        view = overlay(attention(1, 16, 1, 1), stripes, 256, tokens=["a"])
        assert (sent_picture(view) == 100).all()

    @pytest.mark.parametrize("form", FORMS)
    def test_in_every_form(self, weights, form):
        pixels = picture()
        wanted = pixels[:, :, :1] * np.ones(3, np.uint8) if "grey" in form else pixels
        assert np.array_equal(sent_picture(overlay(weights, FORMS[form](pixels))), wanted)

    @pytest.mark.parametrize("mode", MODES)
    def test_of_every_pil_mode_in_the_colours_that_pil_gives_it(self, weights, mode):
        image = in_mode(mode)
        assert image.mode == mode
        wanted = np.asarray((image.convert("LA") if mode == "La" else image).convert("RGB"))
        assert np.array_equal(sent_picture(overlay(weights, image)), wanted)
        grey = mode in ("1", "L", "LA", "La")
        off = abs(wanted.astype(int) - np.asarray(RED_AND_BLUE.convert("RGB"))).max()
        assert grey or off < 25  # LAB does not hold all of blue

    @pytest.mark.parametrize("mode", ["LA", "La", "P", "PA", "RGBA", "RGBa"])
    def test_with_transparent_pixels_is_refused_with_a_remedy_that_works(self, weights, mode):
        image = in_mode(mode)
        if mode == "P":  # as GIF has it: one colour that is none
            image.info["transparency"] = image.getpixel((0, 0))
        else:
            image = in_mode({"La": "LA", "RGBa": "RGBA"}.get(mode, mode))
            image.putalpha(Image.linear_gradient("L").resize(image.size))
            image = image.convert(mode)
        with pytest.raises(
            ValueError, match=r'image has transparent pixels.*image\.convert\("RGB"'
        ):
            overlay(weights, image)
        if mode != "La":  # which PIL itself does not convert
            overlay(weights, image.convert("RGB"))

    @pytest.mark.parametrize("mode", ["I", "I;16", "I;16B", "I;16L", "F"])
    def test_of_numbers_without_a_white_is_refused_with_remedies_that_work(self, weights, mode):
        image = Image.new(mode, (48, 32), 500)
        with pytest.raises(ValueError, match=f"image has mode {mode} and numbers from 500 to 500"):
            overlay(weights, image)
        view = overlay(weights, np.asarray(image) / 1000)
        assert np.unique(sent_picture(view)).tolist() == [128]
        overlay(weights, image.convert("RGB"))

    def test_of_pil_s_floats_from_0_to_1(self, weights):
        view = overlay(weights, Image.new("F", (48, 32), 0.5))
        assert np.unique(sent_picture(view)).tolist() == [128]

    def test_of_three_pixels_height_keeps_its_channels_last(self):
        pixels = picture(3, 12)
        view = overlay(attention(4, 4), pixels, 3)
        assert np.array_equal(sent_picture(view), pixels)

    @pytest.mark.parametrize(
        ("image", "error", "message"),
        [
            (np.zeros((1, 3, 32, 48)), ValueError, r"shape \(1, 3, 32, 48\).*image\[0\]"),
            (np.zeros((32, 48, 4)), ValueError,
             r"image must be .*got shape \(32, 48, 4\): leave its transparency out"),
            (np.zeros((0, 48, 3)), ValueError, r"got shape \(0, 48, 3\)"),
            (np.zeros(48), ValueError, r"got shape \(48,\)"),
            (np.zeros((32, 48), np.int64), TypeError, "uint8 .*float .*got int64"),
            (np.full((32, 48), "a"), TypeError, "got <U1"),
            ([[0.5, 0.5], [1.0]], TypeError, "image must be an array of numbers"),
            (np.linspace(-2.1, 2.64, 32 * 48).reshape(32, 48), ValueError,
             r"from -2\.1 to 2\.64, expected 0 to 1: undo the normalisation"),
            (np.full((32, 48), 255.0), ValueError, "from 255 to 255.*divide by 255"),
            (np.full((32, 48), -0.01), ValueError, r"from -0\.01 to -0\.01"),
            (np.full((32, 48), np.nan), ValueError, "from nan to nan"),
        ],
    )  # fmt: skip
    def test_that_is_none(self, weights, image, error, message):
        with pytest.raises(error, match=message):
            overlay(weights, image)


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("patch", "error", "message"),
        [
            (5, ValueError, "image of 32 × 48 cannot be cut into patches of 5 × 5"),
            ((16, 32), ValueError, "patches of 16 × 32"),
            (0, ValueError, "patch must be a positive.*got 0"),
            ((16, 16, 16), ValueError, r"patch must be .*got \(16, 16, 16\)"),
            (16.0, TypeError, r"patch must be a whole number or \(height, width\), got 16\.0"),
            (True, TypeError, "got True"),
            ("16", TypeError, "got '16'"),
        ],
    )
    def test_patches(self, weights, patch, error, message):
        with pytest.raises(error, match=message):
            overlay(weights, picture(), patch)

    def test_more_patches_than_keys(self):
        message = r"seen has 7 keys, but an image of 32 × 64 in patches of 16 × 16 has 2 × 4 = 8 "
        with pytest.raises(ValueError, match=message + "patches$"):
            overlay(attention(7, 7), picture(32, 64))

    def test_more_than_16_tokens_before_the_patches(self):
        message = "seen has 23 keys, .* has 2 × 3 = 6 patches, and at most 16 tokens may come"
        with pytest.raises(ValueError, match=message):
            overlay(attention(23, 23), picture())

    def test_layers_of_different_sizes(self):
        with pytest.raises(ValueError, match="all layers must have the same queries and keys"):
            overlay([attention(7, 7)[0], attention(8, 8)[0]], picture())

    def test_weights_that_are_none(self):
        with pytest.raises(ValueError, match="sum to 1"):
            overlay([np.ones((1, 7, 7))], picture())
        with pytest.raises(TypeError, match=r"use attnviz\.capture"):
            overlay(None, picture())

    def test_an_item_that_is_not_there(self, seen):
        with pytest.raises(IndexError, match="between 0 and 1, got 2"):
            overlay(seen, picture(32, 32), 8, item=2)


class TestCrossAttention:
    def test_tokens_name_the_queries(self):
        weights = attention(4, 7)
        view = overlay(weights, picture(), tokens=["a", "red", "<b>", "$x$"])
        assert view.tokens == ["a", "red", "<b>", "$x$"]
        assert (view.grid["extra"], view.grid["first"]) == (1, 0)
        view.selection = {"query": 3}
        assert view.figure().axes[0].get_title() == r"\$x\$: layer 1, mean of 3 heads"
        assert not view.figure().axes[0].patches

    def test_they_are_needed(self):
        with pytest.raises(ValueError, match="4 queries and 7 keys: give tokens"):
            overlay(attention(4, 7), picture())

    def test_one_for_each_query(self):
        with pytest.raises(ValueError, match=r"one label for each of the 4.*got 3"):
            overlay(attention(4, 7), picture(), tokens=list("abc"))


class TestAVisionTransformer:
    def test_is_seen_as_it_attended(self, vit, seen):
        view = overlay(seen, picture(32, 32), 8, item=1)
        assert (view.grid["rows"], view.grid["columns"], view.grid["extra"]) == (4, 4, 1)
        assert view.layers[1]["name"] == seen[1].path
        _, (values,) = view._answer({"query": 5})
        wanted = torch.cat([record.weights[1, :, 5] for record in seen]).numpy()
        assert np.abs(rows_of(values, 17) - wanted).max() < 1e-5

    def test_that_was_freed_says_so(self, seen):
        view = overlay(seen, picture(32, 32), 8)
        said = []
        view.send = lambda content, buffers=None: said.append(content)
        seen.free()
        view._hear(None, {"number": 1, "question": {"query": 3}}, [])
        assert "freed" in said[0]["error"]
        view.figure()  # of what is at hand
        view.selection = {"query": 3}
        with pytest.raises(RuntimeError, match="was freed"):
            view.figure()
        data, _ = view._repr_mimebundle_()  # shown again: alive, without a still picture
        assert "application/vnd.jupyter.widget-view+json" in data
        assert "image/png" not in data

    def test_that_was_freed_still_draws_what_was_asked_for(self, seen):
        view = overlay(seen, picture(32, 32), 8)
        view._answer({"query": 3})
        view.selection = {"query": 3, "layer": 0, "head": 1}
        seen.free()
        assert "row 0, column 2: layer 0, head 1" in view.figure().axes[0].get_title()


class TestAnswers:
    def test_the_rows_of_another_query(self, view, weights):
        answer, (values,) = view._answer({"query": 6})
        assert answer == {}
        wanted = np.concatenate([layer[:, 6] for layer in weights])
        assert np.allclose(rows_of(values, 7), wanted, atol=1e-5)

    def test_what_was_asked_last_stays_in_the_state(self, view):
        _, (values,) = view._answer({"query": 6})
        assert view.rows == {"query": 6, "layer": None, "values": values}

    def test_one_layer_at_a_time_where_all_are_too_many(self, monkeypatch, weights):
        monkeypatch.setattr(overlay_module, "AT_ONCE", 2 * 3 * 7)
        view = overlay(weights, picture())
        assert view.one_layer
        assert (view.rows["query"], view.rows["layer"]) == (0, 1)
        _, (values,) = view._answer({"query": 6, "layer": 0})
        assert np.allclose(rows_of(values, 7), weights[0][:, 6], atol=1e-5)

    @pytest.mark.parametrize(
        ("question", "message"),
        [
            ({"query": 7}, "query must be between 0 and 6, got 7"),
            ({"query": -1}, "query must be between 0 and 6, got -1"),
            ({"row": 1}, "no answer to"),
        ],
    )
    def test_what_cannot_be_asked(self, view, question, message):
        with pytest.raises(ValueError, match=message):
            view._answer(question)


class TestSelectionAndStrength:
    def test_nothing_at_first(self, view):
        assert view.selection == NOTHING

    @pytest.mark.parametrize(
        ("axis", "last"), [("layer", 1), ("head", 2), ("query", 6), ("key", 6)]
    )
    def test_of_what_there_is(self, view, axis, last):
        view.selection = {axis: last}
        assert view.selection == {**NOTHING, axis: last}
        with pytest.raises(
            ValueError, match=rf"selection\['{axis}'\] must be between 0 and {last}"
        ):
            view.selection = {axis: last + 1}

    @pytest.mark.parametrize("strength", [-0.1, 1.1, "much"])
    def test_a_strength_that_is_none(self, view, strength):
        with pytest.raises(Exception, match="strength"):
            view.strength = strength


class TestFigure:
    def shown(self, view):
        return view.figure().axes[0].images[1].get_array()

    def test_the_weights_of_the_selection(self, view, weights):
        view.selection = {"layer": 0, "head": 2, "query": 4}
        assert np.allclose(self.shown(view), weights[0][2, 4, 1:].reshape(2, 3), atol=1e-5)

    def test_the_mean_of_the_last_layer_where_none_is_chosen(self, view, weights):
        wanted = weights[1][:, 0].mean(0)[1:].reshape(2, 3)
        assert np.allclose(self.shown(view), wanted, atol=1e-5)
        title = view.figure().axes[0].get_title()
        assert title == "A picture\n[CLS]: layer 1, mean of 3 heads"

    def test_one_layer_at_a_time(self, monkeypatch, weights):
        monkeypatch.setattr(overlay_module, "AT_ONCE", 2 * 3 * 7)
        view = overlay(weights, picture())
        for layer, head in [(1, 0), (0, 2)]:
            view.selection = {"layer": layer, "head": head}
            wanted = weights[layer][head, 0, 1:].reshape(2, 3)
            assert np.allclose(self.shown(view), wanted, atol=1e-5)

    def test_the_patch_that_asks_is_outlined(self, view):
        assert not view.figure().axes[0].patches
        view.selection = {"query": 6}  # row 1, column 2
        frames = view.figure().axes[0].patches
        assert {frame.get_bbox().bounds for frame in frames} == {(32, 16, 16, 16)}

    def test_strength_covers_the_picture(self, view):
        view.strength = 0
        plain, colors = view.figure().axes[0].images
        assert np.array_equal(plain.get_array(), picture())
        assert colors.get_alpha() == 0
        view.strength = 0.5
        grey = view.figure().axes[0].images[0].get_array()
        assert (grey == grey[:, :, :1]).all()

    def test_the_colour_bar_ends_at_the_largest_weight(self, view):
        ax, bar = view.figure().axes
        assert bar.get_ylim() == (0, ax.images[1].get_array().max())
        assert "weight" in bar.get_ylabel()

    def test_a_query_that_may_see_nothing(self):
        view = overlay([np.zeros((1, 7, 7))], picture())
        assert self.shown(view).max() == 0

    def test_the_saved_notebook_carries_it(self, view):
        data, _ = view._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
        assert data["text/plain"] == "OverlayView(2 layers, 2 × 3 patches)"
        assert "application/vnd.jupyter.widget-view+json" in data


def questions_of(file):
    """What a saved page can answer, with the bytes of each answer."""
    text = file.read_text(encoding="utf-8")
    state = re.search(r'id="state">(.*?)</script>', text, re.DOTALL)[1]
    packed = re.search(r'id="bytes">(.*?)</script>', text, re.DOTALL)[1]
    pool = gzip.decompress(base64.b64decode(packed))
    saved = json.loads(state)
    answers = [(question, pool[slice(*buffers[0])]) for question, _, buffers in saved["answers"]]
    return saved["state"], answers, pool


class TestSaving:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
    )
    def test_figures(self, view, tmp_path, ending, start):
        view.save(tmp_path / f"view.{ending}")
        assert (tmp_path / f"view.{ending}").read_bytes().startswith(start)

    def test_a_file_of_another_kind_stays(self, view, tmp_path):
        file = tmp_path / "notes.html"
        file.write_text("mine")
        with pytest.raises(FileExistsError):
            view.save(file)
        assert file.read_text() == "mine"

    def test_a_page_with_the_rows_of_all_queries(self, view, weights, tmp_path):
        view.selection = {"query": 5}
        view.save(tmp_path / "view.html")
        state, answers, pool = questions_of(tmp_path / "view.html")
        assert state["rows"]["query"] == 5
        assert pool[slice(*state["rows"]["values"]["bytes"])] == answers[0][1]
        asked = [question["query"] for question, _ in answers]
        assert asked[:2] == [5, 0]
        assert sorted(asked) == list(range(7))
        for question, values in answers:
            wanted = np.concatenate([layer[:, question["query"]] for layer in weights])
            assert np.allclose(rows_of(values, 7), wanted, atol=1e-5)

    def test_with_as_many_as_fit_the_middle_of_the_image_first(self, monkeypatch, tmp_path):
        monkeypatch.setattr(overlay_module, "PAGE", 2 * 26 * 6)
        view = overlay(attention(26, 26, 1, 1), picture(80, 80))
        view.selection = {"query": 1}
        view.save(tmp_path / "view.html")
        _, answers, _ = questions_of(tmp_path / "view.html")
        assert [question["query"] for question, _ in answers] == [1, 0, 13, 8, 12, 14]

    def test_layer_by_layer_first_all_of_the_chosen_query(self, monkeypatch, weights):
        monkeypatch.setattr(overlay_module, "AT_ONCE", 2 * 3 * 7)
        view = overlay(weights, picture())
        view.selection = {"query": 3, "layer": 0}
        asked = [(q["query"], q["layer"]) for q, _ in view._page_answers()]
        assert asked[:4] == [(3, 0), (3, 1), (0, 0), (0, 1)]
        assert sorted(asked[4:]) == [(q, 0) for q in (1, 2, 4, 5, 6)]

    def test_of_cross_attention_the_queries_in_their_order(self):
        view = overlay(attention(4, 6), picture(), tokens=list("abcd"))
        view.selection = {"query": 2}
        assert [q["query"] for q, _ in view._page_answers()] == [2, 0, 1, 3]

    @pytest.mark.slow
    def test_a_real_page_stays_below_its_bound(self):
        view = overlay(attention(197, 197, 12, 12), np.zeros((224, 224)))
        sizes = [len(values) for _, (_, (values,)) in view._page_answers()]
        assert len(sizes) == 2**23 // 56736
        assert sum(sizes) <= 2**23
