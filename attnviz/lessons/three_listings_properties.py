"""The properties that the repaired models of appendix A must have, each with what it says.

The order is that in which they are best put right: of those that fail, the first is named. A
property that would mislead where another one fails is not asked for there.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attnviz.lessons import wiring
from attnviz.lessons.repair import Property
from attnviz.lessons.wiring import Holds, Inputs, Sizes, where
from attnviz.seeing import AttentionRecord

_N_SYMBOLS = 10


def _sound(inputs: Inputs) -> Holds:
    """Whether the answers can be compared at all."""
    parts = (
        wiring.answers(inputs, _N_SYMBOLS),
        wiring.is_finite(inputs),
        wiring.is_repeatable(inputs),
    )
    return wiring.once(lambda model: all(part(model) for part in parts))


def _basics(
    shaped: Inputs, inputs: Inputs, symbols: str, sound: Holds, apart: Holds
) -> tuple[Property, ...]:
    """What is asked before anything else. shaped: what the shape of the answer is asked for."""
    answers, finite = wiring.answers(shaped, _N_SYMBOLS), wiring.is_finite(inputs)
    return (
        Property(
            f"for 8 places of 10 possible {symbols} the output must be (batch, 8, 10).",
            wiring.afresh(answers),
        ),
        *where(
            answers,
            Property(
                "the output is nan or infinite. Does a mask leave some place nothing to see? In "
                "torch.nn's modules True means forbidden, in attnviz it means allowed.",
                finite,
            ),
        ),
        *where(
            lambda model: answers(model) and finite(model),
            Property(
                "in evaluation mode two runs on the same input differ. nn.Dropout stops by itself "
                "then; F.dropout does only with training=self.training.",
                wiring.is_repeatable(inputs),
            ),
        ),
        *where(
            sound,
            Property(
                "each row of the output sums to one: these are probabilities. The loss wants "
                "logits, and takes the softmax itself.",
                wiring.are_logits(inputs),
            ),
            Property(
                "an item of a batch gets another answer when it comes alone: the items mix. Is the "
                "first dimension really taken as the batch (batch_first=True)?",
                apart,
            ),
        ),
    )


def _of_parts(inputs: Inputs, sizes: Sizes, networks: str) -> tuple[Property, ...]:
    """The sizes of heads and networks, and that every part is at work, once."""
    take_part = wiring.once(wiring.all_take_part(inputs, sizes))
    return (
        Property(networks, wiring.networks_are_wide(sizes)),
        Property(
            "some parameters have no gradient: a part of the model was made and is never called, "
            "or what it returns is not used.",
            take_part,
        ),
        Property(
            f"there are fewer parameters than {sizes.attentions} attentions and "
            f"{sizes.feed_forwards} feed-forward networks need. Is one of them used twice?",
            wiring.enough_parameters(sizes),
        ),
        Property(
            f"there are fewer layer norms than the {sizes.attentions} attentions and "
            f"{sizes.feed_forwards} feed-forward networks: each of them comes with one.",
            wiring.enough_norms(inputs, sizes),
        ),
        *where(
            take_part,
            Property(
                "a feed-forward network is linear: between its two layers the ReLU is missing.",
                wiring.networks_bend(inputs, sizes),
            ),
        ),
    )


_LOST = (
    "with the attentions switched off, some symbols no longer matter where they stand. What an "
    "attention finds is added to what was there before: x + attention(x), not attention(x) alone."
)
_LOST_IN_NETWORK = (
    "with attentions and feed-forward networks switched off, some symbols no longer matter where "
    "they stand. What a network makes is added to its input: x + feed_forward(x)."
)
_MULTIPLIED = (
    "words and places do not get the same gradients, so they were not added. Were they multiplied?"
)


# --- encoder-decoders -----------------------------------------------------------------------------

_SOURCE = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [8, 3, 3, 1, 6, 2, 5, 7]])  # 9 starts a target
_TARGET = torch.tensor([[9, 8, 7, 6, 5, 4, 3, 2], [9, 7, 5, 2, 6, 1, 3, 3]])
_PAIR = _SOURCE, _TARGET
_FIRST = _SOURCE[:1], _TARGET[:1]

# 7 and 5 long, 3 items: sizes that nothing else has, so that weights tell which they are
_UNEQUAL = (
    torch.tensor([[4, 2, 6, 8, 1, 3, 5], [7, 7, 1, 6, 2, 4, 8], [3, 5, 8, 2, 6, 1, 4]]),
    torch.tensor([[9, 4, 8, 6, 2], [9, 1, 5, 3, 7], [9, 2, 2, 7, 4]]),
)
_LENGTHS = 7, 4, 6  # without padding
_ONE = _UNEQUAL[0][:1], _UNEQUAL[1][:1]
_N_SOURCE, _N_TARGET = (ids.size(1) for ids in _UNEQUAL)
_EVEN = torch.tensor([[4, 2, 6, 8, 2, 2, 6]]), torch.tensor([[9, 4, 8, 6, 2]])
_EQUAL_TARGET = _ONE[0], torch.full((1, _N_TARGET), 3)
_NOT_LATER = torch.ones(_N_TARGET, _N_TARGET, dtype=torch.bool).tril()  # (query, key)


def _other(symbol: Tensor) -> Tensor:
    return symbol % 8 + 1


def _heard(which: int, inputs: Inputs = _FIRST) -> Callable[[nn.Module], Tensor]:
    """(place of a symbol of the source, 0, or the target, 1; place of the output)"""
    return lambda model: wiring.hears(model, inputs, which, _other)


_source_heard, _target_heard = wiring.once(_heard(0)), wiring.once(_heard(1))


def _earlier_heard(model: nn.Module) -> bool:
    n = _TARGET.size(1)
    return bool(_target_heard(model)[*torch.triu_indices(n, n, 1)].all())


@wiring.once
def _source_order_matters(model: nn.Module) -> bool:
    change = wiring.changes(_PAIR, (_SOURCE.flip(1), _TARGET))
    return bool(change(model)[0] > wiring.NOTICEABLE)


def _source_neighbours_differ(model: nn.Module) -> bool:
    source, target = _FIRST
    swapped = torch.cat([wiring.swapped(source, place) for place in range(source.size(1) - 1)])
    change = model(swapped, target.repeat(len(swapped), 1)) - model(source, target)
    return bool((change.abs().flatten(1).amax(1) > wiring.NOTICEABLE).all())


@wiring.once
def _all_attentions(model: nn.Module) -> list[AttentionRecord]:
    return wiring.attentions(model, _UNEQUAL)


def _kinds(model: nn.Module) -> tuple[list[AttentionRecord], ...]:
    """The attentions of the encoder, the decoder's own, and those of target to source."""
    shapes = (_N_SOURCE, _N_SOURCE), (_N_TARGET, _N_TARGET), (_N_TARGET, _N_SOURCE)
    seen = _all_attentions(model)
    return tuple([r for r in seen if (r.n_queries, r.n_keys) == shape] for shape in shapes)


@wiring.once
def _target_places(model: nn.Module) -> Tensor:
    """Which places get other answers, where equal symbols stand and no attention helps."""
    with wiring.switched_off(model, _all_attentions(model)):
        return wiring.tells_apart(model, _EQUAL_TARGET)


def _is_seen(model: nn.Module) -> bool:
    return any(_kinds(model))


def _in_layers(kind: int, model: nn.Module, sizes: Sizes) -> float:
    return wiring.layers(_kinds(model)[kind], _UNEQUAL, sizes)


def _paired(sizes: Sizes) -> Holds:
    """Whether as many layers of the decoder ask the source as ask the target."""
    return lambda model: _in_layers(1, model, sizes) == _in_layers(2, model, sizes)


def _encoder_has(sizes: Sizes) -> Holds:
    return lambda model: _in_layers(0, model, sizes) == sizes.layers[0]


def _decoder_has(sizes: Sizes) -> Holds:
    return lambda model: max(_in_layers(k, model, sizes) for k in (1, 2)) == sizes.layers[1]


def _arrives_past_attentions(model: nn.Module) -> bool:
    with wiring.switched_off(model, _all_attentions(model)):
        own = _heard(1, _ONE)(model).diagonal()
    with wiring.switched_off(model, _kinds(model)[0]):
        source = _heard(0, _ONE)(model).any(1)
    return bool(own.all() and source.all())


_past_attentions = wiring.once(_arrives_past_attentions)


def _arrives_past_networks(sizes: Sizes) -> Holds:
    def holds(model: nn.Module) -> bool:
        of_networks = wiring.network_weights(model, sizes)
        with wiring.multiplied(of_networks, 0):
            if len(of_networks) == 2 * sizes.feed_forwards:  # none belongs to an attention
                return _arrives_past_attentions(model)
            with wiring.switched_off(model, _all_attentions(model)):
                return bool(_heard(1, _ONE)(model).diagonal().all())

    return holds


_HEARING = (
    Property(
        "another symbol in the target changes nothing at its place. Whatever the words were, "
        "something has taken their place on the way in: look at embed.",
        lambda model: bool(_target_heard(model).any()),
    ),
    Property(
        "another symbol in the source changes nothing. The source meets the target in one line "
        "only, the decoder's cross-attention: whom does it ask?",
        lambda model: bool(_source_heard(model).any()),
    ),
    Property(
        "the source can be read backwards without any difference: nobody tells the model where a "
        "symbol stands. The places are to be added, not left out.",
        _source_order_matters,
    ),
    Property(
        "another symbol in the target changes what the model says before it. It can read the "
        "answer: the decoder's first attention needs the causal mask, and no other may show it the "
        "target.",
        lambda model: not _target_heard(model).tril(-1).any(),
    ),
    *where(
        lambda model: bool(_target_heard(model).any()),
        Property(
            "some symbols of the target change nothing at their own place, though others hear "
            "them. A place may see itself; it is only what comes after it that is hidden.",
            lambda model: bool(_target_heard(model).diagonal().all()),
        ),
        Property(
            "some symbols of the target change nothing at some of the places after them. The "
            "decoder's first attention lets each place see all that stands before it: is it "
            "there, and what does its mask hide?",
            _earlier_heard,
        ),
    ),
    *where(
        lambda model: bool(_source_heard(model).any()),
        Property(
            "some symbols of the source change nothing at some places of the target. All of the "
            "source may be seen from everywhere: what hides it, or cuts it off?",
            lambda model: bool(_source_heard(model).all()),
        ),
    ),
)


def _placing(sizes: Sizes) -> tuple[Property, ...]:
    return (
        *where(
            _past_attentions,
            Property(
                "where equal symbols stand in the target, all places get the same answer as long "
                "as no attention helps: nobody tells the decoder where a symbol stands. The target "
                "needs places, as the source does.",
                lambda model: bool(_target_places(model).any()),
            ),
        ),
        *where(
            lambda model: (
                _past_attentions(model)
                and _source_order_matters(model)
                and bool(_target_places(model).any())
            ),
            Property(
                "some places cannot be told from others: they share a vector. Each place needs one "
                "of its own.",
                lambda model: (
                    bool(_target_places(model).all()) and _source_neighbours_differ(model)
                ),
            ),
        ),
        Property(_MULTIPLIED, wiring.places_are_added(_EVEN, sizes)),
        Property(
            "a longer target changes what is said before its end. Places are counted from the "
            "beginning, and what stands at the end must not reach back.",
            wiring.same_for_longer(_ONE),
        ),
    )


def _attending(sizes: Sizes, heads: str, encoder: str, decoder: str) -> tuple[Property, ...]:
    """What the attentions themselves show."""
    return (
        Property(heads, wiring.have_heads(_UNEQUAL, sizes)),
        *where(
            _is_seen,
            Property(encoder, _encoder_has(sizes)),
            Property(decoder, _decoder_has(sizes)),
            Property(
                "the decoder's layers do not all have both attentions: one from the target to all "
                "of the target, and one from the target to all of the source.",
                _paired(sizes),
            ),
        ),
        Property(
            "in the encoder some places of the source cannot see others. It reads a text that is "
            "complete: nothing of it is hidden from anyone.",
            lambda model: wiring.all_seen(_kinds(model)[0]),
        ),
        Property(
            "in the cross-attention some places of the source are hidden from places of the "
            "target. The causal mask belongs to the decoder's first attention alone.",
            lambda model: wiring.all_seen(_kinds(model)[2]),
        ),
        Property(
            "in a layer of the decoder some places cannot see themselves, or one before them. The "
            "causal mask hides what comes after a place, and nothing else.",
            lambda model: wiring.all_seen(_kinds(model)[1], _NOT_LATER),
        ),
        Property(_LOST, _past_attentions),
        *where(
            wiring.once(_arrives_past_attentions),
            Property(_LOST_IN_NETWORK, _arrives_past_networks(sizes)),
        ),
    )


def _hides_padding(kind: int) -> Holds:
    """Whether the places of a source get no weight where there is padding."""
    source = wiring.padded(_UNEQUAL[0], _LENGTHS)

    def holds(model: nn.Module) -> bool:
        seen = wiring.attentions(model, (source, _UNEQUAL[1]))
        shape = (_N_TARGET if kind else _N_SOURCE, _N_SOURCE)
        for record in (r for r in seen if (r.n_queries, r.n_keys) == shape):
            if record.batch_size < len(source):  # the items run one by one
                continue
            items = record.weights.unflatten(0, (len(source), -1))
            for weights, length in zip(items, _LENGTHS, strict=True):
                rows = slice(None) if kind else slice(length)
                if weights[..., rows, length:].gt(wiring.NOTICEABLE).any():
                    return False
        return True

    return holds


_PADDING = (
    Property(
        "in the encoder symbols attend to padding: src_key_padding_mask says where it stands.",
        _hides_padding(0),
    ),
    Property(
        "in the cross-attention the target attends to padding of the source. It has a mask of its "
        "own, memory_key_padding_mask.",
        _hides_padding(1),
    ),
    Property(
        "padding behind a source changes the answer. Each item of a batch has its own padding, and "
        "none of it may matter.",
        wiring.same_without_padding(*_UNEQUAL, _LENGTHS),
    ),
)


def encoder_decoder(
    sizes: Sizes, *, heads: str, networks: str, encoder: str, decoder: str, padding: bool
) -> tuple[Property, ...]:
    """All properties of an encoder-decoder over symbols 1 to 9.

    heads, networks, encoder, decoder: what is said where a size is another one.
    padding: whether symbol 0 is padding, and hidden.
    """
    other = _sound(_UNEQUAL)
    sound, apart = _sound(_PAIR), wiring.once(wiring.keeps_items_apart(_PAIR))
    fits = wiring.once(wiring.safely(lambda model: sound(model) and apart(model) and other(model)))
    return (
        *_basics(_PAIR, _PAIR, "symbols", sound, apart),
        *where(
            lambda model: sound(model) and apart(model),
            *_HEARING,
            Property(
                "it does not work where source and target have other lengths, such as 7 and 5. "
                "What is made for the length of one may not be used for the other: a mask, places, "
                "or keys of the one and values of the other.",
                fits,
            ),
        ),
        *where(
            fits,
            *_placing(sizes),
            *_attending(sizes, heads, encoder, decoder),
            *_of_parts(_UNEQUAL, sizes, networks),
            *(_PADDING if padding else ()),
        ),
    )


# --- a BERT ---------------------------------------------------------------------------------------

_IDS = torch.tensor([[2, 3, 4, 5, 6, 2, 3, 1, 5, 6], [7, 8, 9, 2, 1, 7, 8, 9, 2, 3]])
_SEGMENTS = torch.tensor([[0] * 5 + [1] * 5, [0] * 10])
_TEXTS = _IDS, _SEGMENTS
_TEXT = _IDS[:1], _SEGMENTS[:1]
_SEVEN = torch.tensor([[2, 5, 9, 4, 7, 3, 6], [8, 2, 6, 6, 3, 9, 4], [5, 4, 2, 8, 7, 7, 3]])
_OF_SEVEN = _SEVEN, torch.tensor([[0] * 3 + [1] * 4, [0] * 6 + [1], [0] * 7])
_EVEN_WORDS = torch.tensor([[8, 4, 6, 4, 2, 8, 8]]), torch.zeros(1, 7, dtype=torch.long)


def _word_heard(model: nn.Module) -> Tensor:
    return wiring.hears(model, _TEXT, 0, lambda word: 2 + (word - 1) % 8)


def _segment_heard(model: nn.Module) -> Tensor:
    return wiring.hears(model, _TEXT, 1, lambda segment: 1 - segment)


_words_now, _segments_now = wiring.once(_word_heard), wiring.once(_segment_heard)


def _segments_matter(model: nn.Module) -> bool:
    return bool(_segments_now(model).any())


@wiring.once
def _order_matters(model: nn.Module) -> bool:
    flat = torch.zeros_like(_IDS)
    change = wiring.changes((_IDS, flat), (wiring.swapped(_IDS, 1), flat))
    return bool(change(model)[9] > wiring.NOTICEABLE)


@wiring.once
def _places_differ(model: nn.Module) -> bool:
    flat = torch.zeros(1, 10, dtype=torch.long)
    return bool(wiring.tells_apart(model, (flat + 3, flat)).all())


def _segments_are_no_places(model: nn.Module) -> bool:
    """Equal words, whose segments undo their places if both come from the same table."""
    for first in (0, 1):
        segments = (torch.arange(10)[None] + first) % 2
        if not wiring.tells_apart(model, (torch.full_like(segments, 3), segments)).all():
            return False
    return True


def _touched(model: nn.Module, segment: int, among: Callable[[Tensor], bool]) -> list[Tensor]:
    """Of some parameters: which slices have a gradient, in each dimension; of vectors, whether."""
    used = sorted(set(_EVEN_WORDS[0].flatten().tolist()))
    inputs = _EVEN_WORDS[0], torch.full_like(_EVEN_WORDS[1], segment)
    every = [(p, g) for p, g in wiring.gradients(model, inputs, used) if g is not None]
    rounding = 1e-5 * max(float(g.abs().max()) for _, g in every)
    return [
        gradient.abs().movedim(d, 0).reshape(p.size(d) if p.dim() > 1 else 1, -1).amax(1) > rounding
        for p, gradient in every
        if among(p)
        for d in range(p.dim())
    ]


def _segments_are_no_words(model: nn.Module) -> bool:
    """Words that do not stand in a text have no gradient from it, whatever the segments are."""
    with_0, with_1 = (_touched(model, s, lambda p: _N_SYMBOLS in p.shape) for s in (0, 1))
    words = [(a, b) for a, b in zip(with_0, with_1, strict=True) if len(a) == _N_SYMBOLS]
    return all(a.equal(b) for a, b in words)


def _segments_are_learned(sizes: Sizes) -> Holds:
    def holds(model: nn.Module) -> bool:
        with_0, with_1 = (_touched(model, s, lambda p: sizes.d_ff not in p.shape) for s in (0, 1))
        return any(not a.equal(b) for a, b in zip(with_0, with_1, strict=True))

    return holds


@wiring.once
def _all_layers(model: nn.Module) -> list[AttentionRecord]:
    return wiring.attentions(model, _OF_SEVEN)


def _segments_stay(model: nn.Module) -> bool:
    """Whether without attentions no segment is heard at another place than its own."""
    seen = _all_layers(model)
    if not seen or seen[0].batch_size < len(_SEVEN):  # the items of a batch run one by one
        return True
    with wiring.switched_off(model, seen):
        elsewhere = ~torch.eye(_IDS.size(1), dtype=torch.bool)
        return not _segment_heard(model)[elsewhere].any()


def _word_arrives(model: nn.Module) -> bool:
    with wiring.switched_off(model, _all_layers(model)):
        return bool(_word_heard(model).diagonal().all())


def _word_arrives_past_networks(sizes: Sizes) -> Holds:
    def holds(model: nn.Module) -> bool:
        with wiring.multiplied(wiring.network_weights(model, sizes), 0):
            return _word_arrives(model)

    return holds


_READING = (
    Property(
        "the last word changes nothing at the first place: no token sees to its right. Which of "
        "the layers you know lets every token see every other?",
        lambda model: bool(_words_now(model)[9, 0]),
    ),
    Property(
        "the first word changes nothing at the last place: no token sees to its left.",
        lambda model: bool(_words_now(model)[0, 9]),
    ),
    Property(
        "the words can change places without any difference: the positions are missing.",
        _order_matters,
    ),
    *where(
        _order_matters,
        Property(
            "some places get the same answer where the words are equal: they share a vector. Each "
            "place needs one of its own.",
            _places_differ,
        ),
    ),
    *where(
        lambda model: bool(_words_now(model)[0, 9] and _words_now(model)[9, 0]),
        Property(
            "some words change nothing at some places. Every word matters to every place: what "
            "hides them, or leaves them out?",
            lambda model: bool(_words_now(model).all()),
        ),
    ),
    Property(
        "another segment changes nothing: were the segments left out? They need a table of their "
        "own.",
        _segments_matter,
    ),
)


def _segmenting(sizes: Sizes) -> tuple[Property, ...]:
    return (
        Property(
            "some words may change their segment without any difference. Each word has a segment "
            "of its own, as it has a place.",
            lambda model: bool(_segments_now(model).any(1).all()),
        ),
        Property(
            "a text without the words 0 and 1 has a gradient in their rows of the word table, "
            "because segments are looked up there. Give the segments a table with two rows.",
            _segments_are_no_words,
        ),
        *where(
            _places_differ,
            Property(
                "two equal words at different places, one of segment 0 and one of segment 1, get "
                "the same answer: the segments are looked up among the places. Give them a table "
                "of their own.",
                _segments_are_no_places,
            ),
        ),
        Property(
            "no parameter belongs to a segment: the number of the segment is used as it is. A "
            "table holds a vector for each, which can be learned.",
            _segments_are_learned(sizes),
        ),
        Property(
            "a segment is heard at another place than its word's, even with the attentions "
            "switched off: the vectors of the segments are added to the wrong words.",
            _segments_stay,
        ),
    )


def bert(sizes: Sizes, *, heads: str, networks: str, layers: str) -> tuple[Property, ...]:
    """All properties of a BERT over words 1 to 9 and segments 0 and 1.

    heads, networks, layers: what is said where a size is another one.
    """
    other = _sound(_OF_SEVEN)
    eight = _IDS[:, :8], _SEGMENTS[:, :8]
    shaped, comparable = wiring.answers(eight, _N_SYMBOLS), _sound(_TEXTS)
    sound = wiring.once(lambda model: shaped(model) and comparable(model))
    apart = wiring.once(wiring.keeps_items_apart(_TEXTS))
    fits = wiring.once(wiring.safely(lambda model: sound(model) and apart(model) and other(model)))
    return (
        *_basics(eight, _TEXTS, "words", sound, apart),
        *where(
            lambda model: sound(model) and apart(model),
            *_READING,
            Property(
                "it does not work for texts of another length, such as 7 words: what is made for "
                "one length only?",
                fits,
            ),
        ),
        *where(lambda model: fits(model) and _segments_matter(model), *_segmenting(sizes)),
        *where(
            fits,
            Property(_MULTIPLIED, wiring.places_are_added(_EVEN_WORDS, sizes)),
            Property(heads, wiring.have_heads(_OF_SEVEN, sizes)),
            Property(
                layers,
                lambda model: (
                    wiring.layers(_all_layers(model), _OF_SEVEN, sizes) in (0, sizes.layers[0])
                ),
            ),
            Property(
                "in one of the layers some words cannot see others, though another layer shows "
                "them. A BERT has no mask that hides words, in none of its layers.",
                lambda model: wiring.all_seen(_all_layers(model)),
            ),
            Property(_LOST, _word_arrives),
            *where(
                wiring.once(_word_arrives),
                Property(_LOST_IN_NETWORK, _word_arrives_past_networks(sizes)),
            ),
            *_of_parts(_OF_SEVEN, sizes, networks),
        ),
    )
