"""Dimensions are known through all the ways in which models turn them."""

import pytest
import torch

from attnviz.seeing.account import Account
from attnviz.seeing.leading import Lead

BATCH, TOKENS, HEADS, D_K = 2, 5, 3, 4
PLACES, FEATURES = False, True


def known(turn):
    """What is known of the dimensions of a projection, (batch, token, features), after a turn."""
    project = torch.nn.Linear(7, HEADS * D_K)
    with torch.no_grad(), Account(project.parameters(), lambda: "") as account:
        turned = turn(project(torch.randn(BATCH, TOKENS, 7)))
        return account.known(turned).dimensions


def split(x):
    return x.view(BATCH, TOKENS, HEADS, D_K)


ITEM, TOKEN, HEAD, WIDTH = (BATCH, PLACES), (TOKENS, PLACES), (HEADS, FEATURES), (D_K, FEATURES)
TURNS = {
    "none": (lambda x: x, ((ITEM,), (TOKEN,), ((HEADS * D_K, FEATURES),))),
    "heads of their own": (
        lambda x: split(x).transpose(1, 2),
        ((ITEM,), (HEAD,), (TOKEN,), (WIDTH,)),
    ),
    "heads folded into the batch": (
        lambda x: split(x).transpose(1, 2).reshape(BATCH * HEADS, TOKENS, D_K),
        ((ITEM, HEAD), (TOKEN,), (WIDTH,)),
    ),
    "heads before the batch": (
        lambda x: split(x).permute(2, 0, 1, 3).flatten(0, 1),
        ((HEAD, ITEM), (TOKEN,), (WIDTH,)),
    ),
    "folded and out again": (
        lambda x: split(x).transpose(1, 2).flatten(0, 1).unflatten(0, (BATCH, HEADS)),
        ((ITEM,), (HEAD,), (TOKEN,), (WIDTH,)),
    ),
    "one of three": (
        lambda x: torch.cat([x, x, x], -1).view(BATCH, TOKENS, 3, HEADS, D_K).unbind(2)[1],
        ((ITEM,), (TOKEN,), (HEAD,), (WIDTH,)),
    ),
    "one of three in front": (
        lambda x: torch.stack([x, x, x]).reshape(3, BATCH, TOKENS, HEADS, D_K).unbind()[0],
        ((ITEM,), (TOKEN,), (HEAD,), (WIDTH,)),
    ),
    "a slice": (
        lambda x: split(x)[:, 1:, :, :2],
        ((ITEM,), ((4, PLACES),), (HEAD,), ((2, FEATURES),)),
    ),
    "a chosen head": (lambda x: split(x)[:, :, 1], ((ITEM,), (TOKEN,), (WIDTH,))),
    "heads computed one by one": (
        lambda x: torch.stack(split(x).unbind(2), 1),
        ((ITEM,), (HEAD,), (TOKEN,), (WIDTH,)),
    ),
    "a new dimension": (lambda x: split(x)[:, None], ((ITEM,), (), (TOKEN,), (HEAD,), (WIDTH,))),
    "a sum": (lambda x: split(x).sum(1), ((ITEM,), (HEAD,), (WIDTH,))),
    "arithmetic": (
        lambda x: (split(x) * torch.randn(BATCH, 1, 1, D_K) + 1).tanh(),
        ((ITEM,), (TOKEN,), (HEAD,), (WIDTH,)),
    ),
    "a cut in uneven parts": (
        lambda x: x.reshape(BATCH * TOKENS * 2, 6).reshape(4, 30),
        (((4, None),), ((30, None),)),
    ),
}


@pytest.mark.parametrize(("turn", "expected"), TURNS.values(), ids=TURNS)
def test_of_a_projection(turn, expected):
    assert known(turn) == expected


def test_scores_have_the_tokens_of_queries_and_keys():
    project = torch.nn.Linear(7, HEADS * D_K)
    with torch.no_grad(), Account(project.parameters(), lambda: "") as account:
        query, key = (split(project(torch.randn(BATCH, TOKENS, 7))) for _ in range(2))
        dimensions = account.known(
            query.transpose(1, 2) @ key[:, 1:].permute(0, 2, 3, 1)
        ).dimensions
    assert dimensions == ((ITEM,), (HEAD,), (TOKEN,), ((4, PLACES),))


class TestLeads:
    @pytest.mark.parametrize(
        ("lead", "shape"),
        [
            (Lead((BATCH, HEADS), (1,)), (BATCH, HEADS)),
            (Lead((BATCH, HEADS), (1,)), (BATCH * HEADS,)),
            (Lead((HEADS, BATCH), (0,)), (HEADS * BATCH,)),
            (Lead((HEADS, BATCH), (0,)), (HEADS, BATCH)),
            (Lead((BATCH, HEADS, 2), (1, 2)), (BATCH, HEADS, 2)),
            (Lead((2, BATCH, HEADS), (0, 2)), (2 * BATCH, HEADS)),
            (Lead((BATCH,), ()), (BATCH,)),
            (Lead((), ()), ()),
        ],
    )
    def test_are_brought_to_batch_and_heads_and_back(self, lead, shape):
        tensor = torch.randn(*shape, TOKENS, 7)
        four = lead.to_four(tensor)
        assert four.shape == (tensor[..., 0, 0].numel() // lead.n_heads, lead.n_heads, TOKENS, 7)
        assert torch.equal(lead.back(four, shape), tensor)

    def test_heads_before_the_batch_are_the_same_heads(self):
        tensor = torch.randn(BATCH, HEADS, TOKENS, 7)
        turned = tensor.transpose(0, 1).flatten(0, 1)
        assert torch.equal(Lead((HEADS, BATCH), (0,)).to_four(turned), tensor)

    def test_of_what_does_not_tell(self):
        assert Lead.known((((2, None),), ((3, None),), ((5, PLACES),), ((5, PLACES),))) is None

    @pytest.mark.parametrize(
        ("shape", "heads", "items", "n_heads"),
        [
            ((2, 3), None, 2, 3),
            ((6,), 3, 2, 3),
            ((6,), None, 6, 1),
            ((), None, 1, 1),
            ((4, 2, 3), None, 8, 3),
        ],
    )
    def test_as_models_have_it_mostly(self, shape, heads, items, n_heads):
        four = Lead.plain(shape, heads).to_four(torch.randn(*shape, 5, 7))
        assert four.shape == (items, n_heads, 5, 7)
