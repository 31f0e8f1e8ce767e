"""Every view shows every kind of token: in a saved page, in its table, on hover, and live."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from torch.nn.functional import scaled_dot_product_attention

import attnviz as av
from attnviz.views.visible import visible

pytestmark = pytest.mark.slow

LONG = "Donaudampfschiff" * 200
TOKENS = ["", " ", "\n", "\t", "\x07", "\u200b", "\ud83d", "\ude00", " the", "\u0301", "猫", LONG]
SEEN = list(map(visible, TOKENS[:-1]))
N = len(TOKENS)
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(N), (2, N)).astype(np.float32)
LABELS = ".attnviz-label-query:not(.attnviz-current)"


def some_scores():
    class Attention(torch.nn.Module):
        def forward(self, x):
            return scaled_dot_product_attention(x, x, x)

    model = Attention()
    with av.capture(model) as seen:
        model(torch.eye(N)[None, None])
    return av.scores(seen[0], TOKENS, head=0)


def an_overlay():
    weights = np.full((2, N, 4), 0.25, np.float32)
    return av.overlay([weights], np.zeros((8, 8), np.uint8), 4, tokens=TOKENS)


def a_tokenizer():
    encoding = SimpleNamespace(ids=list(range(N)), tokens=TOKENS, offsets=[(0, 0)] * N)
    return av.tokenizer(SimpleNamespace(encode=lambda _: encoding), "a")


VIEWS = {  # how it is made, and where its tokens stand
    "heatmap": (lambda: av.heatmap(WEIGHTS[0], TOKENS), LABELS),
    "heads": (lambda: av.heads([WEIGHTS], TOKENS), LABELS),
    "scrubber": (lambda: av.scrubber({0: [WEIGHTS]}, TOKENS), LABELS),
    "flow": (lambda: av.flow([WEIGHTS], TOKENS), ".attnviz-flow-label-query"),
    "scores": (some_scores, ".attnviz-token"),
    "overlay": (an_overlay, ".attnviz-overlay-chips bdi"),
    "tokenizer": (a_tokenizer, ".attnviz-piece bdi"),
}


@pytest.fixture(params=VIEWS)
def name(request):
    return request.param


@pytest.fixture
def page(name, open_page, tmp_path):
    make, _ = VIEWS[name]
    make().save(tmp_path / "view.html")
    page = open_page(tmp_path / "view.html")
    yield page
    assert page.problems == []
    page.close()


def test_the_tokens_can_be_seen_and_the_long_one_is_whole_on_hover(name, page):
    tokens = page.locator(VIEWS[name][1])
    expect(tokens).to_have_count(N)
    *seen, short = tokens.all_text_contents()
    assert seen == SEEN
    assert short.endswith("…")
    assert len(short) <= 60
    whole = tokens.last.evaluate("node => node.closest('[title]').title")
    assert LONG in whole
    widths = tokens.evaluate_all("all => all.map(node => node.getBoundingClientRect().width)")
    assert min(widths) > 1
    assert max(widths) < 600


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "overlay"])
def test_so_they_can_in_the_table_where_the_long_one_is_whole(name, page):
    button = page.get_by_role("button", name="Show as table").last
    button.click()
    tokens = page.locator(".attnviz-table tbody th")
    if name == "heads":  # its first table says what each head does
        tokens = page.locator(".attnviz-matrix .attnviz-table tbody th")
    assert tokens.all_text_contents() == [*SEEN, LONG]
    table = page.locator(".attnviz-table:not([hidden])").bounding_box()
    assert table["width"] < 1200
    assert tokens.last.bounding_box()["width"] < 600


def test_live_they_arrive_and_the_cell_says_nothing(run_cell):
    code = (
        "import attnviz as av\n"
        f"tokens = {TOKENS[:-1]!a}\n"
        "view = av.heatmap([[1 / 11] * 11] * 11, tokens, title='half \\ud83d')\n"
        "view"
    )
    notebook = run_cell("any_token", code)
    picture = notebook.picture()
    expect(picture.labels("query")).to_have_text(SEEN)
    expect(picture.title).to_have_text("half ‹U+D83D›")
    kinds = [output["output_type"] for output in notebook.cells()[1]["outputs"]]
    assert kinds == ["execute_result"]
    assert notebook.run("view.title = '\\ude00 and more'") == ""
    expect(picture.title).to_have_text("‹U+DE00› and more")
    assert notebook.problems == []
