"""The exercises of appendix A: two functions to write, and three models whose repair is checked.

A repaired model is not compared with another one. It must have properties, such as "a symbol of the
source changes the output", which hold for every right model whatever its weights.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from attnviz.layers import DecoderBlock, EncoderBlock, causal_mask, scaled_dot_product_attention
from attnviz.lessons import repaired
from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exercise import Exercise, Misconception
from attnviz.lessons.repair import Repair
from attnviz.lessons.three_listings_properties import bert, encoder_decoder
from attnviz.lessons.wiring import Sizes

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


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return scaled_dot_product_attention(query, key, value, mask)[0]


def _weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    return (_scores(query, key, mask) / query.size(-1) ** 0.5).softmax(-1)


def _hidden_as_zero(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ key.mT / query.size(-1) ** 0.5
    return (scores if mask is None else scores * mask).softmax(-1) @ value


def _hidden_too_late(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    weights = _weights(query, key, None)
    return (weights if mask is None else weights * mask) @ value


def _nan_where_hidden(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ key.mT / query.size(-1) ** 0.5
    return (scores if mask is None else scores.masked_fill(~mask, torch.inf)).softmax(-1) @ value


def _over_queries(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return (_scores(query, key, mask) / query.size(-1) ** 0.5).softmax(-2) @ value


def _attention_case(draw: Draw) -> tuple:
    """Sizes that all differ, far apart scores, and masks of every form; a key is left for each."""
    n_queries, n_keys, d_k, d_v, *lead = draw.sizes(6)
    n_keys, lead = n_keys + 1, lead[: draw.randrange(3)]
    query, key = draw.tensor(*lead, n_queries, d_k, scale=3), draw.tensor(*lead, n_keys, d_k)
    alike, full = [1] * len(lead), [*lead, n_queries, n_keys]
    form = draw.choice([None, full[-2:], full, [*alike, 1, n_keys], [*alike, *full[-2:]]])
    mask = None if form is None else draw.allowed(*form, share=0.5)
    return draw.choice([0.3, 1, 20]) * query, key, draw.tensor(*lead, n_keys, d_v), mask


attention = Exercise(
    name="attention",
    reference=_attention,
    cases=(
        (*_random((5, 8), (5, 8), (5, 6)), None),
        (*_random((4, 16), (4, 16), (4, 3)), causal_mask(4)),
        (*_random((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), None),
        (*_random((3, 2), (3, 2), (3, 4)), torch.tensor([[True, False, True]] * 3)),
        (*(60 * t for t in _random((4, 5), (4, 5), (4, 6))), causal_mask(4)),
        *drawn(12, _attention_case),
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
            "it is right where nothing is hidden, and nan where something is: infinity minus "
            "infinity is nan. Hidden scores become -infinity; what is subtracted from them, as the "
            "softmax does with the largest, must be finite.",
            _nan_where_hidden,
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
            lambda query, key, value, mask: (
                _scores(query, key, mask) / query.size(-1) ** 0.5 @ value
            ),
        ),
        Misconception(
            "the scores are multiplied by √d_k; they should be divided by it.",
            lambda query, key, value, mask: (
                (_scores(query, key, mask) * query.size(-1) ** 0.5).softmax(-1) @ value
            ),
        ),
        Misconception(
            "the mask is the wrong way round: what it allows is hidden. Fill where it is False.",
            lambda query, key, value, mask: (
                _weights(query, key, None if mask is None else ~mask) @ value
            ),
        ),
        Misconception(
            "hidden scores become 0, and e⁰ is 1: hidden keys keep a weight. Fill with -infinity.",
            _hidden_as_zero,
        ),
        Misconception(
            "weights are hidden instead of scores: what the mask leaves of them no longer sums to "
            "one. It comes before the softmax.",
            _hidden_too_late,
        ),
        Misconception(
            "the softmax runs over the queries; it should run over the keys, the last dimension.",
            _over_queries,
        ),
    ),
    first_step="Start with the error that a call without a mask raises: which softmax is called?",
)


class _EncoderDecoder(nn.Module):
    """A small encoder-decoder over symbols 0 to 7 that may lack a part: a case to test tests on.

    memory: "all" of the source, its "first" or "last" place alone, its "length" alone, as the same
            symbol stands everywhere, or the decoder's own tokens, "none".
    places: whether the model is told where a symbol stands.   dropout: as in the blocks.
    scale:  what the logits are multiplied with; that of symbol 0 is always 0 unless it is 1.
    """

    def __init__(
        self,
        *,
        memory: str = "all",
        places: bool = True,
        dropout: float = 0.0,
        scale: float = 1.0,
        seed: int = 0,
    ):
        super().__init__()
        self.memory, self.places, self.scale = memory, places, scale
        generator = torch.Generator().manual_seed(seed)
        self.words, self.place = nn.Embedding(8, 16), nn.Embedding(16, 16)
        self.encoder = EncoderBlock(16, 2, 32, dropout=dropout)
        self.decoder = DecoderBlock(16, 2, 32, dropout=dropout)
        for parameter in self.parameters():  # without touching the reader's random numbers
            fan = parameter.size(-1) ** 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) / fan

    def _embed(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        return x + self.place.weight[: ids.size(1)] if self.places else x

    def _encoded(self, source: Tensor) -> Tensor:
        """What the decoder may see of the source."""
        if self.memory in ("first", "last"):  # alone from the beginning: no other is heard
            source = source[:, :1] if self.memory == "first" else source[:, -1:]
        if self.memory == "length":
            source = torch.full_like(source, 3)
        return self.encoder(self._embed(source))[0]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source, target: (batch, token).   Returns logits (batch, token, 8)."""
        memory, memory_mask = self._encoded(source), None
        x, mask = self._embed(target), causal_mask(target.size(1))
        if self.memory == "none":
            memory, memory_mask = x, mask
        logits = self.decoder(x, memory, mask, memory_mask)[0] @ self.words.weight.T
        return logits if self.scale == 1 else logits * self.scale * (torch.arange(8) > 0)


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
_EVERY_SYMBOL = torch.tensor([[7, 0, 3, 6, 1, 5, 2, 4]]), torch.tensor([[0, 5, 7]])
_PALINDROME = torch.tensor([[6, 2, 0, 2, 6]]), torch.tensor([[1, 3, 5]])


def _model_case(draw: Draw) -> tuple:
    model = _EncoderDecoder(
        memory=draw.choice(["all", "first", "last", "length", "none"]),
        places=draw.random() < 0.7,
        dropout=draw.choice([0.0, 0.3]),
        scale=draw.choice([1.0, 20.0]),
        seed=draw.randrange(1000),
    )
    batch, n_source, n_target = draw.sizes(3)
    return (
        model,
        draw.ids(batch, n_source, among=range(8)),
        draw.ids(batch, n_target, among=range(8)),
    )


source_matters = Exercise(
    name="source_matters",
    reference=_source_matters,
    cases=(
        (_EncoderDecoder(), *_SYMBOLS),
        (_EncoderDecoder(memory="none"), *_SYMBOLS),
        (_EncoderDecoder(dropout=0.3), *_SYMBOLS),
        (_EncoderDecoder(memory="none", dropout=0.3), *_SYMBOLS),
        (_EncoderDecoder(places=False), *_SYMBOLS),
        (_EncoderDecoder(), *_PALINDROME),
        (_EncoderDecoder(memory="none"), *_PALINDROME),
        (_EncoderDecoder(), *_EVERY_SYMBOL),
        (_EncoderDecoder(memory="first"), *_EVERY_SYMBOL),
        (_EncoderDecoder(memory="last"), *_EVERY_SYMBOL),
        (_EncoderDecoder(memory="length"), *_EVERY_SYMBOL),
        (_EncoderDecoder(scale=20.0), *_EVERY_SYMBOL),
        *((_EncoderDecoder(), torch.tensor([[one]]), torch.tensor([[5, 2]])) for one in (0, 3, 7)),
        *drawn(8, _model_case),
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


# --- the models of the three listings ---

repaired_transformer = Repair(
    name="repaired_transformer",
    properties=encoder_decoder(
        Sizes(layers=(1, 1)),
        heads="the layers do not have 4 heads of width 8. Print the model and compare it with the "
        "call: which argument lands on which parameter?",
        networks="the feed-forward networks of the two layers should widen from 32 to 64, and do "
        "not. Give the sizes by name.",
        encoder="the encoder should have one layer, and so one attention from all of the source to "
        "all of the source.",
        decoder="the decoder should have one layer, with one attention of each kind.",
        padding=False,
    ),
    first_step="Start with embed: the places have to be added to the words.",
    reference=repaired.encoder_decoder,
)

repaired_wrapper = Repair(
    name="repaired_wrapper",
    properties=encoder_decoder(
        Sizes(layers=(2, 2)),
        heads="the layers do not have 4 heads of width 8: the parameter is called nhead.",
        networks="the feed-forward networks of the four layers should be 64 wide. That is the "
        "parameter dim_feedforward; without it they are 2,048 wide.",
        encoder="the encoder does not attend in 2 layers: num_encoder_layers says how many it has.",
        decoder="the decoder does not have 2 layers. Its number is an argument of its own, "
        "num_decoder_layers.",
        padding=True,
    ),
    first_step="Start with the third argument: which parameter of nn.Transformer does it meet?",
    reference=partial(repaired.encoder_decoder, n_layers=2),
)

repaired_bert = Repair(
    name="repaired_bert",
    properties=bert(
        Sizes(layers=(2, 0)),
        heads="the layers do not have 4 heads of width 8: where does n_heads go?",
        networks="the feed-forward networks of the two layers should widen from 32 to 64, each "
        "with weights of its own.",
        layers="there should be two layers, with an attention each.",
    ),
    first_step="Start with a second table, nn.Embedding(2, d_model), for the segments.",
    reference=repaired.bert,
)
