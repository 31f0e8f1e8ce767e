"""What a model finds, and what guessing finds."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnviz.data import IGNORED, wordpiece_tokenizer
from attnviz.data.wordpiece import SPECIAL
from attnviz.models import BertConfig, BertForPreTraining
from attnviz.training.measure import guess_by_frequency, measure_masked

TOKENIZER = wordpiece_tokenizer([*SPECIAL, *"abcdefgh"])
WINDOWS = torch.cat(
    [torch.full((90, 1), 2), torch.randint(5, 13, (90, 20), generator=torch.Generator())], 1
)


class Answers(nn.Module):
    """Gives the right answer to some of the questions, sure or less sure."""

    def __init__(self, knows, sure=20.0):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.knows, self.sure, self.seen = knows, sure, []

    def forward(self, ids, labels):
        self.seen.append((ids.clone(), labels.clone(), self.training))
        asked = labels[labels != IGNORED]
        said = torch.where(torch.isin(asked, torch.tensor(self.knows)), asked, 4)
        return SimpleNamespace(logits=nn.functional.one_hot(said, 13) * self.sure)


class TestModel:
    def test_who_knows_all_finds_all(self):
        found = measure_masked(Answers(range(13)), WINDOWS, TOKENIZER)
        assert found.accuracy == 1
        assert found.loss < 1e-6

    def test_who_knows_some(self):
        model = Answers([5, 6])
        found = measure_masked(model, WINDOWS, TOKENIZER)
        labels = torch.cat([labels for _, labels, _ in model.seen])
        asked = labels[labels != IGNORED]
        assert found.accuracy == ((asked == 5) | (asked == 6)).double().mean().item()

    def test_the_loss_of_who_knows_nothing(self):
        found = measure_masked(Answers([], sure=0.0), WINDOWS, TOKENIZER)
        assert found.loss == pytest.approx(math.log(13))

    def test_all_that_is_asked_for_is_hidden_and_nothing_else(self):
        model = Answers([])
        measure_masked(model, WINDOWS, TOKENIZER)
        ids, labels = (torch.cat([one[i] for one in model.seen]) for i in (0, 1))
        asked = labels != IGNORED
        assert (ids[asked] == 4).all()
        assert ids[~asked].equal(WINDOWS[~asked])
        assert labels[asked].equal(WINDOWS[asked])
        assert (asked.sum(1) == 3).all()  # 15 % of 20

    @pytest.mark.parametrize("training", [False, True])
    def test_in_eval_mode_and_then_as_before(self, training):
        model = Answers([]).train(training)
        measure_masked(model, WINDOWS, TOKENIZER)
        assert not any(mode for *_, mode in model.seen)
        assert model.training == training

    def test_a_real_model_is_asked_the_same_each_time(self):
        torch.manual_seed(0)
        config = BertConfig(13, 8, 1, 2, 16, max_len=21, dropout=0.5)
        model = BertForPreTraining(config)
        first = measure_masked(model, WINDOWS, TOKENIZER)
        assert measure_masked(model, WINDOWS, TOKENIZER) == first
        assert measure_masked(model, WINDOWS, TOKENIZER, seed=1) != first

    def test_no_windows(self):
        with pytest.raises(ValueError, match="at least one, got none"):
            measure_masked(Answers([]), WINDOWS[:0], TOKENIZER)


class TestGuessing:
    def test_equally_frequent_pieces(self):
        windows = torch.arange(5, 13).repeat(200, 1)
        found = guess_by_frequency(windows, windows, TOKENIZER)
        assert found.loss == pytest.approx(math.log(8), abs=1e-3)

    def test_the_most_frequent_piece_is_named(self):
        windows = torch.tensor([[2, 5, 5, 5, 5, 5, 5, 6, 7, 3]]).repeat(500, 1)
        found = guess_by_frequency(windows, windows, TOKENIZER)
        assert found.accuracy == pytest.approx(6 / 8, abs=0.05)
        entropy = -sum(p * math.log(p) for p in (6 / 8, 1 / 8, 1 / 8))
        assert found.loss == pytest.approx(entropy, abs=0.06)

    def test_the_same_questions_as_the_models(self):
        model = Answers([5])
        found = measure_masked(model, WINDOWS, TOKENIZER)
        often = torch.full((10, 20), 5)
        assert guess_by_frequency(often, WINDOWS, TOKENIZER).accuracy == pytest.approx(
            found.accuracy, abs=1e-6
        )
