"""Search against brute force on vocabularies so small that every target can be looked at."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnviz.models import Transformer, TransformerConfig, beam_search, greedy_search

START, END = 1, 2
SEEDS = [0, 1, 2, 3]
PENALTIES = [0.0, 0.6, 1.0]
SOURCES = torch.tensor([[3, 5, 4, 6], [6, 3, 0, 0], [5, 0, 0, 0], [4, 4, 3, 0], [3, 6, 6, 6]])


def random_model(seed, target_size=6, dropout=0.0):
    """A Transformer with random weights whose targets end at many different places."""
    torch.manual_seed(seed)
    model = Transformer(
        TransformerConfig(7, target_size, 8, 2, n_layers=1, d_ff=16, max_len=8, dropout=dropout)
    )
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.4)
    nn.init.normal_(model.target_embedding.weight)
    nn.init.zeros_(model.output.bias)
    return model.eval()


class Dice(nn.Module):
    """A model whose scores after each beginning were drawn by lot: nothing can be foreseen."""

    config = SimpleNamespace(max_len=8)

    def __init__(self, seed, target_size):
        super().__init__()
        self.seed, self.target_size = seed, target_size

    def encode(self, source):
        return source[..., None], (source != 0)[:, None]

    def decode(self, target, memory, mask):
        assert memory.shape == (*mask.shape[::2], 1) == (len(target), mask.size(2), 1)
        logits = torch.empty(*target.shape, self.target_size)
        for i, j in itertools.product(*map(range, target.shape)):
            drawn_for = (self.seed, *target[i, : j + 1].tolist())
            lot = torch.Generator().manual_seed(hash(drawn_for) % 2**31)
            logits[i, j] = 2 * torch.randn(self.target_size, generator=lot)
        return SimpleNamespace(logits=logits)

    def forward(self, source, target):
        return self.decode(target, *self.encode(source))


MODELS = [random_model, Dice]


@torch.no_grad()
def log_probability(model, source, ids):
    logits = model(source, torch.tensor([[START, *ids[:-1]]])).logits[0]
    return sum(row.log_softmax(-1)[i].item() for row, i in zip(logits, ids, strict=True))


def score(model, source, ids, length_penalty):
    return log_probability(model, source, ids) / ((5 + len(ids)) / 6) ** length_penalty


def every_target(size, max_len):
    """All that end within max_len, then all that do not."""
    others = [i for i in range(size) if i != END]
    for n in range(max_len):
        yield from ([*ids, END] for ids in itertools.product(others, repeat=n))
    yield from (list(ids) for ids in itertools.product(others, repeat=max_len))


class TestGreedySearch:
    @pytest.mark.parametrize("seed", range(10))
    def test_it_is_the_most_likely_token_again_and_again(self, seed):
        model = random_model(seed)
        found = greedy_search(model, SOURCES, START, END, max_len=6)
        for source, ids in zip(SOURCES, found.tolist(), strict=True):
            written = []
            while len(written) < found.size(1) and END not in written:
                logits = model(source[None], torch.tensor([[START, *written]])).logits[0, -1]
                written.append(max(range(6), key=lambda i, logits=logits: logits[i].item()))
            assert ids == written + [0] * (found.size(1) - len(written))

    @pytest.mark.parametrize("seed", range(10))
    def test_a_batch_is_its_sources_one_by_one(self, seed):
        model = random_model(seed)
        together = greedy_search(model, SOURCES, START, END, max_len=7)
        for source, ids in zip(SOURCES, together, strict=True):
            alone = greedy_search(model, source[None, source != 0], START, END, max_len=7)[0]
            assert torch.equal(ids[: len(alone)], alone)
            assert (ids[len(alone) :] == 0).all()

    def test_the_models_of_these_tests_end_their_targets_at_different_places(self):
        ends = set()
        for seed in range(10):
            found = greedy_search(random_model(seed), SOURCES, START, END, max_len=6)
            ends |= {ids.index(END) if END in ids else None for ids in found.tolist()}
        assert len(ends) > 4

    def test_it_stops_when_all_have_ended(self):
        model = random_model(0)
        with torch.no_grad():
            model.output.bias[END] = 1e4
        assert greedy_search(model, SOURCES, START, END, max_len=8).tolist() == [[END]] * 5

    def test_a_target_that_does_not_end_has_all_the_tokens_allowed(self):
        model = random_model(0)
        with torch.no_grad():
            model.output.bias[END] = -1e4
        for max_len in (1, 8):
            found = greedy_search(model, SOURCES, START, END, max_len)
            assert found.shape == (5, max_len)
            assert (found != END).all()

    @pytest.mark.parametrize("max_len", [0, -1, 9])
    def test_a_length_that_the_model_does_not_have(self, max_len):
        with pytest.raises(ValueError, match=f"max_len must be between 1 and 8, got {max_len}"):
            greedy_search(random_model(0), SOURCES, START, END, max_len)


class TestBeamSearch:
    @pytest.mark.slow
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("length_penalty", PENALTIES)
    @pytest.mark.parametrize(("size", "max_len"), [(4, 3), (3, 4)])
    @pytest.mark.parametrize("model", MODELS)
    def test_a_beam_wide_enough_finds_what_brute_force_finds(
        self, seed, length_penalty, size, max_len, model
    ):
        model = model(seed, size)
        found = beam_search(model, SOURCES[0], START, END, max_len, size**max_len, length_penalty)
        scored = [
            (score(model, SOURCES[:1], ids, length_penalty), ids)
            for ids in every_target(size, max_len)
        ]
        assert len(found) == len(scored)
        for (ids, p), (p2, ids2) in zip(found, sorted(scored, reverse=True), strict=True):
            assert ids == ids2
            assert abs(p - p2) < 1e-4

    @pytest.mark.parametrize("width", [1, 2, 3])
    def test_targets_that_did_not_end_only_fill_up(self, width):
        model = random_model(0)
        for bias, ended in [(1e4, 1), (-1e4, 0)]:  # [end] at once and then hardly, and never
            with torch.no_grad():
                model.output.bias[END] = bias
            found = beam_search(model, SOURCES[0], START, END, 3, width)
            assert [ids[-1] for ids, _ in found].count(END) >= ended
            assert len(found) == width
            assert bias > 0 or all(len(ids) == 3 and END not in ids for ids, _ in found)
        for seed in range(10):
            found = beam_search(Dice(seed, 4), SOURCES[0], START, END, 8, width)
            assert all(ids[-1] == END for ids, _ in found)

    @pytest.mark.slow
    @pytest.mark.parametrize("max_len", [1, 4, 8])
    @pytest.mark.parametrize("model", MODELS)
    def test_a_beam_of_one_is_greedy(self, max_len, model):
        for model, source in [(model(seed, 5), SOURCES[seed % 5]) for seed in range(20)]:
            [(ids, p)] = beam_search(model, source, START, END, max_len, width=1)
            greedy = greedy_search(model, source[None], START, END, max_len)[0].tolist()
            assert ids == greedy
            assert abs(p - log_probability(model, source[None], ids)) < 1e-4

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("length_penalty", PENALTIES)
    @pytest.mark.parametrize("width", [1, 2, 3])
    @pytest.mark.parametrize("model", MODELS)
    def test_scores_are_the_log_probabilities_of_the_targets(
        self, seed, length_penalty, width, model
    ):
        model = model(seed, 6)
        found = beam_search(model, SOURCES[0], START, END, 6, width, length_penalty)
        assert len(found) == width
        scores = [p for _, p in found]
        assert scores == sorted(scores, reverse=True)
        for ids, p in found:
            assert abs(p - score(model, SOURCES[:1], ids, length_penalty)) < 1e-4
            assert END not in ids[:-1]

    @pytest.mark.slow
    @pytest.mark.parametrize("length_penalty", [-1.0, *PENALTIES, 3.0])
    @pytest.mark.parametrize("width", [1, 2, 4])
    def test_stopping_early_is_never_wrong(self, length_penalty, width, monkeypatch):
        steps, decode = [], Dice.decode

        def counted(self, *arguments):
            steps[-1] += 1
            return decode(self, *arguments)

        def search(seed):
            steps.append(0)
            return beam_search(Dice(seed, 5), SOURCES[0], START, END, 8, width, length_penalty)

        monkeypatch.setattr(Dice, "decode", counted)
        early = [search(seed) for seed in range(20)]
        monkeypatch.setattr("attnviz.models.search._cannot_be_beaten", lambda *_: False)
        late = [search(seed) for seed in range(20)]
        assert early == late
        assert steps[20:] == [8] * 20
        assert length_penalty > 1 or min(steps[:20]) < 8  # otherwise nothing was tried

    def test_a_wider_beam_can_find_what_a_greedy_one_misses(self):
        narrow, wide = (
            [beam_search(Dice(seed, 6), SOURCES[0], START, END, 6, width)[0][1] for seed in SEEDS]
            for width in (1, 6)
        )
        assert sum(b > a + 1e-4 for a, b in zip(narrow, wide, strict=True)) > 1

    def test_a_length_penalty_favours_longer_targets(self):
        lengths = []
        for length_penalty in (-2.0, 0.0, 2.0):
            best = [
                beam_search(Dice(seed, 5), SOURCES[0], START, END, 8, 4, length_penalty)[0]
                for seed in range(10)
            ]
            lengths.append(sum(len(ids) for ids, _ in best))
        assert lengths[0] < lengths[1] < lengths[2]

    def test_a_source_with_or_without_a_batch(self):
        model = random_model(0)
        found = [beam_search(model, source, START, END, 4) for source in (SOURCES[0], SOURCES[:1])]
        assert found[0] == found[1]

    def test_one_source_at_a_time(self):
        with pytest.raises(ValueError, match="takes one source, got 5"):
            beam_search(random_model(0), SOURCES, START, END, 4)

    def test_a_width_below_one(self):
        with pytest.raises(ValueError, match="width must be at least 1, got 0"):
            beam_search(random_model(0), SOURCES[0], START, END, 4, width=0)

    @pytest.mark.parametrize("max_len", [0, 9])
    def test_a_length_that_the_model_does_not_have(self, max_len):
        with pytest.raises(ValueError, match=f"max_len must be between 1 and 8, got {max_len}"):
            beam_search(random_model(0), SOURCES[0], START, END, max_len)


class TestDropout:
    @pytest.mark.parametrize("search", [greedy_search, beam_search])
    def test_it_is_off_while_a_model_in_training_searches(self, search):
        model = random_model(0, dropout=0.5)
        wanted = search(model, SOURCES[:1], START, END, 6)
        model.train()
        for _ in range(3):
            found = search(model, SOURCES[:1], START, END, 6)
            assert torch.equal(found, wanted) if search is greedy_search else found == wanted

    @pytest.mark.parametrize("search", [greedy_search, beam_search])
    def test_every_part_is_in_its_mode_again_also_after_an_error(self, search):
        model = random_model(0).train()
        model.encoder.eval()  # a part that is frozen
        before = [module.training for module in model.modules()]
        search(model, SOURCES[:1], START, END, 4)
        assert [module.training for module in model.modules()] == before
        with pytest.raises(ValueError, match="source must hold ids from 0 to 6"):
            search(model, SOURCES[:1] + 1, START, END, 4)
        assert [module.training for module in model.modules()] == before
        assert len(set(before)) == 2
