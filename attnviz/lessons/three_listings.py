"""The exercises of appendix A: two functions to write, and three models whose repair is checked.

A repaired model is not compared with another one. It must have properties, such as "a symbol of the
source changes the output", which hold for every right model whatever its weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attnviz.layers import DecoderBlock, EncoderBlock, causal_mask, scaled_dot_product_attention
from attnviz.lessons.exercise import Exercise, Misconception
from attnviz.lessons.repair import Property, Repair
from attnviz.seeing import capture

_NOTICEABLE = 1e-5  # a smaller difference between two outputs is rounding


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ key.mT
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def _raising(error: Exception) -> Callable:
    """A function that raises the same error as the listing did, on each input or masked ones."""

    def raises(*arguments: Tensor) -> Tensor:
        raise error

    return raises


def _without_import(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        raise NameError("name 'math' is not defined")
    return scaled_dot_product_attention(query, key, value)[0]


def _without_import_and_root(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> Tensor:
    if mask is not None:
        raise NameError("name 'math' is not defined")
    return (query @ key.mT).softmax(-1) @ value


def _shadowed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        raise NameError("name 'math' is not defined")
    raise TypeError("'bool' object is not callable")


attention = Exercise(
    name="attention",
    reference=lambda query, key, value, mask: scaled_dot_product_attention(query, key, value, mask)[
        0
    ],
    cases=(
        (*_random((5, 8), (5, 8), (5, 6)), None),
        (*_random((4, 16), (4, 16), (4, 3)), causal_mask(4)),
        (*_random((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), None),
    ),
    misconceptions=(
        Misconception(
            "nothing has been repaired yet. Without a mask, softmax is the parameter, True, and "
            "cannot be called; with one, the line with math stops first.",
            _shadowed,
        ),
        Misconception(
            "softmax still names the parameter, True, not the function; rename one or leave out "
            "the parameter.",
            _raising(TypeError("'bool' object is not callable")),
        ),
        Misconception(
            "it runs without a mask and is right there, but the branch with the mask still needs "
            "math. Import it, or use torch.inf.",
            _without_import,
        ),
        Misconception(
            "two mistakes are left: the scores are not divided by √d_k, and the branch with the "
            "mask still needs math, which it does not find.",
            _without_import_and_root,
        ),
        Misconception(
            "it runs now, and one mistake is left, a silent one: the scores are not divided by "
            "√d_k.",
            lambda query, key, value, mask: _scores(query, key, mask).softmax(-1) @ value,
        ),
        Misconception(
            "the scores are divided by d_k; it should be by its square root.",
            lambda query, key, value, mask: (
                (_scores(query, key, mask) / query.size(-1)).softmax(-1) @ value
            ),
        ),
        Misconception(
            "the root is of the number of keys; it should be of d_k, the width of the queries.",
            lambda query, key, value, mask: (
                (_scores(query, key, mask) / key.size(-2) ** 0.5).softmax(-1) @ value
            ),
        ),
        Misconception(
            "the weights are divided by √d_k, after the softmax; the scores should be, before it.",
            lambda query, key, value, mask: (
                _scores(query, key, mask).softmax(-1) / query.size(-1) ** 0.5 @ value
            ),
        ),
        Misconception(
            "the mask is never used: the branch went away together with its mistake.",
            lambda query, key, value, mask: scaled_dot_product_attention(query, key, value)[0],
        ),
        Misconception(
            "the softmax went away together with the parameter: these are scores times values.",
            lambda query, key, value, mask: query @ key.mT / query.size(-1) ** 0.5 @ value,
        ),
    ),
    first_step="Start with the error that a call without a mask raises: which softmax is called?",
)


class _EncoderDecoder(nn.Module):
    """A small encoder-decoder over symbols 0 to 7 that may lack a part: a case to test tests on.

    memory: whether the decoder attends to the encoder; otherwise to its own tokens.
    places: whether the model is told where a symbol stands.   dropout: as in the blocks.
    """

    def __init__(self, *, memory: bool = True, places: bool = True, dropout: float = 0.0):
        super().__init__()
        self.memory, self.places = memory, places
        generator = torch.Generator().manual_seed(0)
        self.words, self.place = nn.Embedding(8, 16), nn.Embedding(16, 16)
        self.encoder = EncoderBlock(16, 2, 32, dropout=dropout)
        self.decoder = DecoderBlock(16, 2, 32, dropout=dropout)
        for parameter in self.parameters():  # without touching the reader's random numbers
            fan = parameter.size(-1) ** 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) / fan

    def _embed(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        return x + self.place.weight[: ids.size(1)] if self.places else x

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source, target: (batch, token).   Returns logits (batch, token, 8)."""
        memory, _ = self.encoder(self._embed(source))
        x, mask = self._embed(target), causal_mask(target.size(1))
        memory, memory_mask = (memory, None) if self.memory else (x, mask)
        return self.decoder(x, memory, mask, memory_mask)[0] @ self.words.weight.T


def _moved(model: nn.Module, one: tuple, other: tuple) -> bool:
    """Whether a model makes something else of other inputs."""
    return bool((model(*one) - model(*other)).abs().max() > _NOTICEABLE)


def _source_matters(model: nn.Module, source: Tensor, target: Tensor) -> bool:
    model.eval()
    return _moved(model, (source, target), ((source + 1) % 8, target))


def _by_the_last_place(model: nn.Module, source: Tensor, target: Tensor) -> bool:
    model.eval()
    other = (source + 1) % 8
    return bool((model(source, target) == model(other, target)).all())


_SYMBOLS = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[2, 7, 1, 0]])
_PALINDROME = torch.tensor([[6, 2, 0, 2, 6]]), torch.tensor([[1, 3, 5]])

source_matters = Exercise(
    name="source_matters",
    reference=_source_matters,
    cases=(
        (_EncoderDecoder(), *_SYMBOLS),
        (_EncoderDecoder(memory=False), *_SYMBOLS),
        (_EncoderDecoder(dropout=0.3), *_SYMBOLS),
        (_EncoderDecoder(memory=False, dropout=0.3), *_SYMBOLS),
        (_EncoderDecoder(places=False), *_SYMBOLS),
        (_EncoderDecoder(), *_PALINDROME),
        (_EncoderDecoder(memory=False), *_PALINDROME),
    ),
    misconceptions=(
        Misconception(
            "a model without memory passes your test when it has dropout: two runs in training "
            "mode differ by chance, whatever the source. Call model.eval() first.",
            lambda model, source, target: _moved(
                model, (source, target), ((source + 1) % 8, target)
            ),
        ),
        Misconception(
            "your test says True of every model, also of those without memory: did you change the "
            "target, or both? Only the source should change.",
            lambda model, source, target: True,
        ),
        Misconception(
            "your test says False of every model, also of the right ones. Does the source change "
            "at all, and are the numbers compared rather than the shapes?",
            lambda model, source, target: False,
        ),
        Misconception(
            "it is the wrong way round: True should mean that the output changed.",
            _by_the_last_place,
        ),
        Misconception(
            "your test changes nothing but the order of the source. That is another property: a "
            "model without places fails it, and so does any model when the source reads the same "
            "backwards. Put in other symbols.",
            lambda model, source, target: _moved(
                model.eval(), (source, target), (source.flip(1), target)
            ),
        ),
    ),
    first_step="Start with model.eval() and logits = model(source, target).",
)


# --- the encoder-decoder of the first listing, and the wrapper of the third ---

_SOURCE = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [8, 3, 3, 1, 6, 2, 5, 7]])  # 9 starts a target
_TARGET = torch.tensor([[9, 8, 7, 6, 5, 4, 3, 2], [9, 7, 5, 2, 6, 1, 3, 3]])


def _with(ids: Tensor, place: int, symbol: int) -> Tensor:
    """Ids with another symbol at one place of the first row."""
    ids = ids.clone()
    ids[0, place] = symbol
    return ids


def _change(model: nn.Module, one: tuple, other: tuple) -> Tensor:
    """By how much the output of the first row differs, at each place: (token,)."""
    return (model(*one) - model(*other))[0].abs().amax(-1)


def _gives_logits(model: nn.Module) -> bool:
    return tuple(model(_SOURCE, _TARGET).shape) == (2, 8, 10)


def _target_matters(model: nn.Module) -> bool:
    other = _with(_TARGET, 2, 1)
    return bool(_change(model, (_SOURCE, _TARGET), (_SOURCE, other))[2] > _NOTICEABLE)


def _source_symbol_matters(model: nn.Module) -> bool:
    other = _with(_SOURCE, 4, 1)
    return bool(_change(model, (_SOURCE, _TARGET), (other, _TARGET))[0] > _NOTICEABLE)


def _source_order_matters(model: nn.Module) -> bool:
    return bool(_change(model, (_SOURCE, _TARGET), (_SOURCE.flip(1), _TARGET))[0] > _NOTICEABLE)


def _no_look_ahead(model: nn.Module) -> bool:
    other = _with(_TARGET, 5, 1)
    change = _change(model, (_SOURCE, _TARGET), (_SOURCE, other))
    return bool(change[:5].max() < _NOTICEABLE)


def _items_apart(model: nn.Module) -> bool:
    together, alone = model(_SOURCE, _TARGET)[:1], model(_SOURCE[:1], _TARGET[:1])
    return bool((together - alone).abs().max() < 1e-4)


def _heads_are(n_heads: int, d_k: int) -> Callable[[nn.Module], bool]:
    def holds(model: nn.Module) -> bool:
        with capture(model) as seen:
            model(_SOURCE, _TARGET)
        widths = {r.query.size(-1) for r in seen if r.query is not None}
        return {r.heads for r in seen} == {n_heads} and widths <= {d_k}

    return holds


def _feed_forward_is(d_model: int, d_ff: int) -> Callable[[nn.Module], bool]:
    def holds(model: nn.Module) -> bool:
        linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
        return sum((m.in_features, m.out_features) == (d_model, d_ff) for m in linears) >= 2

    return holds


_LOGITS = Property(
    "for 8 places of 10 possible symbols the output must be (batch, 8, 10).", _gives_logits
)
_TARGET_SYMBOL = Property(
    "another symbol in the target changes nothing at its place. Whatever the words were, something "
    "has taken their place on the way in: look at embed.",
    _target_matters,
)
_SOURCE_SYMBOL = Property(
    "another symbol in the source changes nothing. The source meets the target in one line only, "
    "the decoder's cross-attention: whom does it ask?",
    _source_symbol_matters,
)
_SOURCE_ORDER = Property(
    "the source can be read backwards without any difference: nobody tells the model where a "
    "symbol stands. The places are to be added, not left out.",
    _source_order_matters,
)
_LOOK_AHEAD = Property(
    "another symbol in the target changes what the model says before it. It can read the answer: "
    "the decoder's first attention needs the causal mask, and no other may show it the target.",
    _no_look_ahead,
)
_ITEMS_APART = Property(
    "the first item of a batch gets another answer when it comes alone: the items mix. Is the "
    "first dimension really taken as the batch (batch_first=True)?",
    _items_apart,
)

_TRANSLATES = _LOGITS, _TARGET_SYMBOL, _SOURCE_SYMBOL, _SOURCE_ORDER, _LOOK_AHEAD

repaired_transformer = Repair(
    name="repaired_transformer",
    properties=(
        *_TRANSLATES,
        Property(
            "the layers do not have 4 heads of width 8. Print the model and compare it with the "
            "call: which argument lands on which parameter?",
            _heads_are(4, 8),
        ),
        Property(
            "the feed-forward networks of the two layers should widen from 32 to 64, and do not. "
            "Give the sizes by name.",
            _feed_forward_is(32, 64),
        ),
        _ITEMS_APART,
    ),
    first_step="Start with embed: the places have to be added to the words.",
)


def _layers(kind: type, n_layers: int) -> Callable[[nn.Module], bool]:
    return lambda model: sum(isinstance(m, kind) for m in model.modules()) == n_layers


repaired_wrapper = Repair(
    name="repaired_wrapper",
    properties=(
        *_TRANSLATES,
        _ITEMS_APART,
        Property(
            "the decoder does not have 2 layers. Its number is an argument of its own, "
            "num_decoder_layers.",
            _layers(nn.TransformerDecoderLayer, 2),
        ),
        Property(
            "the encoder does not have 2 layers: num_encoder_layers says how many.",
            _layers(nn.TransformerEncoderLayer, 2),
        ),
    ),
    first_step="Start with the third argument: which parameter of nn.Transformer does it meet?",
)


# --- the BERT of the second listing ---

_IDS = torch.tensor([[2, 3, 4, 5, 6, 2, 3, 1, 5, 6], [7, 8, 9, 2, 1, 7, 8, 9, 2, 3]])
_SEGMENTS = torch.tensor([[0] * 5 + [1] * 5, [0] * 10])
_NO_MASK = torch.tensor([[2, 3, 4, 5, 6, 2, 3, 4, 5, 6]])  # neither word 0 nor word 1


def _reaches(changed: int, read: int) -> Callable[[nn.Module], bool]:
    def holds(model: nn.Module) -> bool:
        other = _with(_IDS, changed, 9)
        change = _change(model, (_IDS, _SEGMENTS), (other, _SEGMENTS))
        return bool(change[read] > _NOTICEABLE)

    return holds


def _segments_matter(model: nn.Module) -> bool:
    return _moved(model, (_IDS, _SEGMENTS), (_IDS, 1 - _SEGMENTS))


def _segments_are_no_words(model: nn.Module) -> bool:
    """Words that do not stand in a text have no gradient from it."""
    model.zero_grad()
    h = model(_NO_MASK, _SEGMENTS[:1])
    (gradient,) = torch.autograd.grad(h.square().sum(), model.words.weight)
    return bool((gradient[:2] == 0).all())


def _order_matters(model: nn.Module) -> bool:
    flat = torch.zeros_like(_IDS)
    order = torch.tensor([0, 2, 1, *range(3, 10)])
    change = _change(model, (_IDS, flat), (_IDS[:, order], flat))
    return bool(change[9] > _NOTICEABLE)


repaired_bert = Repair(
    name="repaired_bert",
    properties=(
        Property(
            "for 8 places of 10 possible words the output must be (batch, 8, 10).",
            lambda model: tuple(model(_IDS[:, :8], _SEGMENTS[:, :8]).shape) == (2, 8, 10),
        ),
        Property(
            "the last word changes nothing at the first place: no token sees to its right. Which "
            "of the layers you know lets every token see every other?",
            _reaches(9, 0),
        ),
        Property(
            "the first word changes nothing at the last place: no token sees to its left.",
            _reaches(0, 9),
        ),
        Property(
            "the words can change places without any difference: the positions are missing.",
            _order_matters,
        ),
        Property(
            "another segment changes nothing: were the segments left out? They need a table of "
            "their own.",
            _segments_matter,
        ),
        Property(
            "a text without the words 0 and 1 has a gradient in their rows of the word table, "
            "because segments are looked up there. Give the segments a table with two rows.",
            _segments_are_no_words,
        ),
    ),
    first_step="Start with a second table, nn.Embedding(2, d_model), for the segments.",
)
