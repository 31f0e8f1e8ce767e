"""BERT with a head: for pretraining, for labels of texts and of tokens, for answers in a text."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.checks import check_kind, check_whole
from attnviz.models.bert import BertConfig, BertEncoder, initialise
from attnviz.tensors import check_batch, check_bool, check_floats, check_int64, check_values

IGNORED = -100  # the label of what is not asked for
_IN_PARTS = nn.LinearCrossEntropyOptions(batch_chunk_size=512)  # the fastest of 64 to 1,024 on CPUs


class PreTrainingOutput(NamedTuple):
    """logits: of the masked words, (asked, vocab) in the order of the labels that are asked for,

            or (batch, token, vocab) where no labels were given; None where they are not needed.
    next_logits: (batch, 2), that sentence B follows A (0) or does not (1); None without that head.
    loss:        a scalar, the mean cross-entropy of what is asked for plus that of the next
                 sentence; None without labels.
    """

    logits: Tensor | None
    next_logits: Tensor | None
    loss: Tensor | None


class BertForPreTraining(nn.Module):
    """A BERT that guesses hidden pieces, and whether a sentence follows another.

    config: the sizes; `head_transform` and `next_sentence` choose the heads.
    The logits are dot products with the token vectors (tied weights) plus a bias. They, and the
    last layer, are worked out only at the places that the labels ask for.
    Source: Devlin et al. 2019, section 3.1; without transform: Geiping and Goldstein 2023.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.encoder = BertEncoder(config)
        self.config = config
        self.transform = self.pooler = self.next_sentence = None
        if config.head_transform:
            self.transform = nn.Sequential(
                nn.Linear(config.d_model, config.d_model),
                nn.GELU(),
                nn.LayerNorm(config.d_model, config.eps),
            )
            initialise(self.transform, config)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        if config.next_sentence:
            self.pooler = nn.Linear(config.d_model, config.d_model)
            self.next_sentence = nn.Linear(config.d_model, 2)
            initialise(nn.ModuleList([self.pooler, self.next_sentence]), config)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_labels: Tensor | None = None,
        need_logits: bool = True,
    ) -> PreTrainingOutput:
        """Guess the hidden pieces.

        input_ids, mask, token_type_ids: as for `BertEncoder`.
        labels:      (batch, token) int64, the hidden pieces, -100 where nothing is asked for.
        next_labels: (batch,) int64, 0 where sentence B follows A, else 1.
        need_logits: without them the loss of the masked words is worked out a part of the places at
                     a time, in less memory and time.
        Returns the logits and the loss; see `PreTrainingOutput`.
        Raises ValueError or TypeError for inputs or labels that do not fit, or labels that ask for
        nothing.
        """
        self._check(input_ids, labels, next_labels, need_logits)
        if labels is None:
            hidden = self.encoder(input_ids, mask, token_type_ids).last_hidden_state
            asked, first = hidden, hidden[:, 0]
        else:
            at, valid = _places(labels, first_too=self.next_sentence is not None)
            hidden = self.encoder(input_ids, mask, token_type_ids, at=at).last_hidden_state
            asked, first = hidden[valid], hidden[:, 0]  # (asked, d_model)
        wanted = None if labels is None else labels.gather(1, at)[valid]
        logits, loss = self._guess(asked, wanted, need_logits)
        next_logits = None
        if self.next_sentence is not None:
            next_logits = self.next_sentence(torch.tanh(self.pooler(first)))
            if next_labels is not None:
                loss = loss + F.cross_entropy(next_logits, next_labels)
        return PreTrainingOutput(logits, next_logits, loss)

    def _guess(
        self, hidden: Tensor, wanted: Tensor | None, need_logits: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The logits, unless they are not needed, and the loss, unless there are no labels."""
        if self.transform is not None:
            hidden = self.transform(hidden)
        weight, bias = self.encoder.token_embedding.weight, self.output_bias
        if not need_logits and not torch.is_autocast_enabled(hidden.device.type):
            return None, F.linear_cross_entropy(
                hidden, weight, wanted, linear_bias=bias, options=_IN_PARTS
            )
        logits = F.linear(hidden, weight, bias)
        loss = None if wanted is None else F.cross_entropy(logits, wanted)
        return logits if need_logits else None, loss

    def _check(
        self,
        input_ids: Tensor,
        labels: Tensor | None,
        next_labels: Tensor | None,
        need_logits: bool,
    ) -> None:
        check_batch("input_ids", input_ids)
        if labels is None and not need_logits:
            raise ValueError("need_logits=False leaves only the loss, which needs labels: got None")
        if labels is not None:
            _check_labels("labels", labels, input_ids.shape, self.config.vocab_size)
        if next_labels is not None:
            if self.next_sentence is None:
                raise ValueError("next_labels cannot be given: this model has no such head")
            if labels is None:
                raise ValueError("next_labels must come with labels")
            _check_labels("next_labels", next_labels, input_ids.shape[:1], 2)


def _places(labels: Tensor, *, first_too: bool) -> tuple[Tensor, Tensor]:
    """Where labels ask for something, as many places in each row.

    Returns the places (batch, n), in the shorter rows filled up with others, and which of them are
    asked for, (batch, n) bool. With first_too the first place is [CLS], asked for or not.
    """
    asked = labels != IGNORED
    wanted = asked.clone()
    if first_too:
        wanted[:, 0] = True
    n = int(wanted.sum(1).max())
    at = wanted.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n]
    return at, asked.gather(1, at)


def _check_labels(name: str, labels: Tensor, shape: tuple[int, ...], n: int) -> None:
    check_int64(name, labels)
    if labels.shape != shape:
        raise ValueError(f"{name} must be {tuple(shape)}, got {tuple(labels.shape)}")
    check_values(name, labels)
    asked = labels[labels != IGNORED]
    if not asked.numel():
        raise ValueError(f"{name} must ask for something, but all are {IGNORED}")
    if asked.min() < 0 or asked.max() >= n:
        raise ValueError(
            f"{name} must be {IGNORED} or between 0 and {n - 1}, "
            f"got {int(asked.min())} to {int(asked.max())}"
        )


class TaskOutput(NamedTuple):
    """logits: (batch, label) or (batch, token, label).   loss: a scalar; None without labels."""

    logits: Tensor
    loss: Tensor | None


class BertForSequenceClassification(nn.Module):
    """A label for each text.

    encoder:  the BERT that reads it; it is trained along, as it is no copy.
    n_labels: how many labels there are.
    pooling:  what the label is read off: "first", the state of [CLS] through a dense layer and
              tanh, or "mean", the mean state of all real tokens.
    Raises ValueError for another pooling, or fewer than two labels; TypeError for another encoder.
    Source: Devlin et al. 2019, section 4.1; the mean as in Reimers and Gurevych 2019, section 3.
    """

    def __init__(self, encoder: BertEncoder, n_labels: int, pooling: str = "first"):
        super().__init__()
        _check_encoder(encoder)
        if pooling not in ("first", "mean"):
            raise ValueError(f"pooling must be 'first' or 'mean', got {pooling!r}")
        config = encoder.config
        self.encoder = encoder
        self.pooler = nn.Linear(config.d_model, config.d_model) if pooling == "first" else None
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = _classifier(config, n_labels)
        if self.pooler is not None:
            initialise(self.pooler, config)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TaskOutput:
        """input_ids, mask, token_type_ids: as for `BertEncoder`.   labels: (batch,) int64.

        Returns logits (batch, label) and the mean cross-entropy.
        """
        check_batch("input_ids", input_ids)
        n_labels = self.classifier.out_features
        if labels is not None:
            _check_labels("labels", labels, input_ids.shape[:1], n_labels)
        if self.pooler is not None:
            at = torch.zeros_like(input_ids[:, :1])
            first = self.encoder(input_ids, mask, token_type_ids, at=at).last_hidden_state[:, 0]
            pooled = torch.tanh(self.pooler(first))
        else:
            pooled = mean_over(self.encoder(input_ids, mask, token_type_ids)[0], mask)
        logits = self.classifier(self.dropout(pooled))
        return TaskOutput(logits, None if labels is None else F.cross_entropy(logits, labels))


def check_mean_classifier(model: BertForSequenceClassification) -> None:
    """An error, unless it is a classifier with mean pooling on the CPU."""
    check_kind("model", model, BertForSequenceClassification)
    if model.pooler is not None:
        raise ValueError("model must have pooling='mean', got pooling='first'")
    where = next(model.parameters()).device
    if where.type != "cpu":
        raise ValueError(f"model must be on the CPU, got one on {where}: model.cpu()")


class BertForTokenClassification(nn.Module):
    """A label for each token, such as whether it belongs to a name.

    encoder:  the BERT that reads the text; it is trained along, as it is no copy.
    n_labels: how many labels there are.
    Raises ValueError for fewer than two labels, TypeError for another encoder.
    Source: Devlin et al. 2019, section 5.3.
    """

    def __init__(self, encoder: BertEncoder, n_labels: int):
        super().__init__()
        _check_encoder(encoder)
        self.encoder = encoder
        self.dropout = nn.Dropout(encoder.config.dropout)
        self.classifier = _classifier(encoder.config, n_labels)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TaskOutput:
        """input_ids, mask, token_type_ids: as for `BertEncoder`.

        labels: (batch, token) int64, -100 where none is asked for: padding, and the later pieces
                of a word.
        Returns logits (batch, token, label) and the mean cross-entropy of what is asked for.
        """
        check_batch("input_ids", input_ids)
        if labels is not None:
            _check_labels("labels", labels, input_ids.shape, self.classifier.out_features)
        hidden = self.encoder(input_ids, mask, token_type_ids).last_hidden_state
        logits = self.classifier(self.dropout(hidden))
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return TaskOutput(logits, loss)


class BertForQuestionAnswering(nn.Module):
    """Where in a text the answer to a question begins and ends.

    encoder: the BERT that reads [CLS] question [SEP] text [SEP]; it is trained along, as it is no
             copy.
    Raises TypeError for another encoder.
    Source: Devlin et al. 2019, section 4.2.
    """

    def __init__(self, encoder: BertEncoder):
        super().__init__()
        _check_encoder(encoder)
        self.encoder = encoder
        self.span = _classifier(encoder.config, 2)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TaskOutput:
        """input_ids, mask, token_type_ids: as for `BertEncoder`.

        labels: (batch, 2) int64, the places of the answer's first and last token.
        Returns logits (batch, token, 2), that the answer begins or ends at a token, with the least
        possible number at padding; and the mean cross-entropy of both.
        """
        check_batch("input_ids", input_ids)
        if labels is not None:
            _check_labels("labels", labels, (len(input_ids), 2), input_ids.size(1))
        logits = self.span(self.encoder(input_ids, mask, token_type_ids).last_hidden_state)
        if mask is not None:
            logits = logits.masked_fill(~mask[..., None], torch.finfo(logits.dtype).min)
        return TaskOutput(logits, None if labels is None else F.cross_entropy(logits, labels))


def mean_over(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The mean state of the real tokens: (batch, token, d_model) to (batch, d_model).

    mask: (batch, token) bool, True for real tokens. A text without any gives zeros.
    Raises TypeError for other kinds of tensors.
    """
    check_floats("hidden", hidden)
    if mask is None:
        return hidden.mean(1)
    check_bool("mask", mask, "bool, True for real tokens")
    real = mask[..., None].to(hidden.dtype)
    return (hidden * real).sum(1) / real.sum(1).clamp(min=1)


def _check_encoder(encoder: object) -> None:
    if not isinstance(getattr(encoder, "config", None), BertConfig):  # a compiled one has it, too
        raise TypeError(f"encoder must be a BertEncoder, got {type(encoder).__name__}")


def _classifier(config: BertConfig, n_labels: int) -> nn.Linear:
    layer = nn.Linear(config.d_model, check_whole("n_labels", n_labels, 2))
    initialise(layer, config)
    return layer
