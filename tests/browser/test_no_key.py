"""What goes to no key is said on the page: by pointer, pinned, in tables, and read aloud."""

import os

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

import attnviz as av
from attnviz.seeing import AttentionRecord
from attnviz.views.no_key import to_no_key

pytestmark = pytest.mark.slow

TOKENS = ["the", "cat", "sat", "on", "a", "mat"]


def record(index, sinks=True, n=6, heads=3):
    torch.manual_seed(index)
    query, key = torch.randn(1, heads, n, 8), torch.randn(1, heads, n, 8)
    scores = query @ key.mT / 8**0.5
    beside = torch.linspace(-1, 3, heads).view(1, heads, 1, 1).expand(1, -1, n, 1)
    weights = torch.cat([scores, beside], -1).softmax(-1)[..., :n] if sinks else scores.softmax(-1)
    return AttentionRecord(index, 0, f"layers.{index}", "self", query, key, scale=8**-0.5,
                           written_out=weights, sinks=sinks)  # fmt: skip


SEEN = [record(0), record(1, sinks=False)]


def share(query, head=None, one=SEEN[0]):
    """The sentence for a head, or for the mean of all."""
    rest = one.rest[0, :, query]
    return to_no_key(float(rest.mean() if head is None else rest[head]))


@pytest.fixture
def shown(open_page, tmp_path):
    """A function that saves a view and opens its page."""
    pages = []

    def shown(view):
        view.save(tmp_path / "view.html")
        pages.append(open_page(tmp_path / "view.html"))
        return pages[-1]

    yield shown
    for page in pages:
        assert page.problems == []
        page.close()


def test_heatmap(shown, picture_of):
    page = shown(av.heatmap(SEEN[0], TOKENS, head=1))
    picture = picture_of(page.locator(".attnviz-heatmap"))
    expect(picture.cells).to_have_attribute("aria-label", picture_label())
    picture.hover(2, 3)
    expect(picture.readout).to_contain_text(f"sat → on: {SEEN[0].weights[0, 1, 2, 3]:.3f}")
    expect(picture.readout).to_contain_text(f" · {share(2, 1)}")
    picture.click(4, 0)
    expect(picture.pinned).to_contain_text(f" · {share(4, 1)}")
    page.get_by_role("button", name="Show as table").click()
    expect(page.locator("tbody tr").last).to_have_text(f"no key{SEEN[0].rest[0, 1, 4]:.3f}")


def picture_label():
    said = "Attention: 6 queries by 6 keys, a share of each row to no key. Arrow keys move, "
    return said + "Enter pins a row, Escape lets it go, plus and minus zoom."


def test_a_long_text_says_it_of_single_queries_and_zoomed_in(shown, picture_of):
    n = 600
    long = record(3, n=n, heads=1)
    page = shown(av.heatmap(long, [f"t{i}" for i in range(n)]))
    picture = picture_of(page.locator(".attnviz-heatmap"))
    picture.cells.focus()
    for _ in range(9):
        page.keyboard.press("+")
    page.keyboard.press("ArrowDown")
    said = picture.readout.inner_text()
    query = int(said.split("query ")[1].split(",")[0])
    about = float(long.rest[0, 0, query])
    percent = float(said.split("≈ ")[-1].split(" %")[0])
    assert percent == pytest.approx(100 * about, abs=1)


def test_heads(shown, picture_of):
    view = av.heads(SEEN, TOKENS)
    page = shown(view)
    view_ = page.locator(".attnviz-heads")
    view_.locator("canvas.attnviz-grid").hover(position={"x": 60, "y": 50})
    mean = float(view.measures["to no key"][0][0])
    expect(view_.locator(".attnviz-readout").first).to_contain_text(
        f"to\u00a0no\u00a0key\u00a0{mean:.2f}"
    )
    view_.locator("select").first.select_option("to no key")
    picture = picture_of(page.locator(".attnviz-matrix"))
    picture.hover(1, 1)
    expect(picture.readout).to_contain_text(share(1, 0))
    view_.locator("canvas.attnviz-grid").focus()
    page.keyboard.press("End")


def test_flow(shown):
    page = shown(av.flow(SEEN, TOKENS))
    rows = page.locator(".attnviz-flow-column-query .attnviz-flow-row")
    readout = page.locator(".attnviz-readout")
    rows.nth(2).hover()
    expect(readout).to_contain_text(share(2))
    page.locator(".attnviz-flow-column-key .attnviz-flow-row").nth(2).hover()
    expect(readout).not_to_contain_text("no key")  # a key gets, it does not attend
    rows.nth(3).click()
    page.get_by_role("button", name="Show as table").click()
    rest = SEEN[0].rest[0, :, 3]
    cells = [f"{x:.3f}" for x in [float(rest.mean()), *rest.tolist()]]
    expect(page.locator("tbody tr").last).to_have_text("no key" + "".join(cells))
    page.locator(".attnviz-flow-chip").nth(1).click(modifiers=["Shift"])
    expect(readout).to_contain_text(share(3, 1))
    page.locator("select").first.select_option("1")
    expect(readout).not_to_contain_text("no key")


def test_scores(shown):
    page = shown(av.scores(SEEN[0], TOKENS, head=2))
    page.locator(".attnviz-token").nth(3).click()
    summary = page.locator(".attnviz-summary")
    expect(summary.first).to_contain_text(share(3, 2))
    expect(summary.last).to_contain_text("over all keys and the sinks")
    expect(page.locator(".attnviz-notice")).to_be_empty()


def test_overlay(shown):
    page = shown(av.overlay(SEEN, np.zeros((32, 48)), 16))
    rest = page.locator(".attnviz-overlay-rest")
    expect(rest).to_have_count(0)  # the last layer has no sinks
    page.locator("select").first.select_option("0")
    expect(rest).to_contain_text(share(4))  # of the patch in the middle
    page.get_by_role("radio").nth(3).click()
    expect(rest).to_contain_text(share(4, 2))


def test_scrubber(shown, picture_of):
    page = shown(av.scrubber({0: [SEEN[1]], 5: [SEEN[0]]}, TOKENS))
    picture = picture_of(page.locator(".attnviz-matrix"))
    picture.hover(3, 2)
    expect(picture.readout).to_contain_text("0 % to no key")
    page.get_by_role("slider").first.fill("1")
    picture.hover(3, 1)
    expect(picture.readout).to_contain_text(share(3, 0))
    largest = float(SEEN[0].weights[0, 0].max()), float(SEEN[1].weights[0, 0].max())
    expect(page.locator(".attnviz-legend span").last).to_have_text(f"{max(largest):.2f}")


def test_explore(shown, picture_of):
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["?", *TOKENS])}, "?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    config = hf.GptOssConfig(
        vocab_size=7, hidden_size=16, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        num_hidden_layers=1, intermediate_size=8, num_local_experts=2, num_experts_per_tok=1,
        pad_token_id=0, eos_token_id=0, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = hf.GptOssForCausalLM._from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    view = av.explore(model, words, "the cat sat")
    view.edits = [{"layer": 0, "head": 0, "off": True}]
    with torch.no_grad(), av.capture(model) as seen:
        model(torch.tensor([[1, 2, 3]]))
    page = shown(view)
    picture = picture_of(page.locator(".attnviz-matrix"))
    before = share(2, 0, seen[0])
    lost = 1 - float(seen[0].rest[0, 0, 2])
    for tab, said in [("before", before), ("after", "100 % to no key"),
                      ("difference", f"+{to_no_key(lost)}")]:  # fmt: skip
        page.get_by_role("button", name=tab, exact=True).click()
        picture.hover(2, 0)
        expect(picture.readout).to_contain_text(said)
