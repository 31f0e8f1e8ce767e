"""Hidden pieces: how many, which, what becomes of them, and the same again from the same seed."""

import pytest
import torch

from attnviz.data import IGNORED, Masking, wordpiece_tokenizer
from attnviz.data.wordpiece import SPECIAL

LETTERS = [chr(97 + i) for i in range(26)]
TOKENIZER = wordpiece_tokenizer([*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS)])
PAD, UNK, CLS, SEP, MASK = range(5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_ids(rows=200, length=64, seed=1):
    """Rows of [CLS] … [SEP], some of them padded."""
    ids = torch.randint(5, 57, (rows, length), generator=seeded(seed))
    ids[:, 0] = CLS
    for row, end in enumerate(torch.randint(9, length, (rows,), generator=seeded(seed)).tolist()):
        ids[row, end], ids[row, end + 1 :] = SEP, PAD
    return ids


class TestChoice:
    @pytest.mark.parametrize("rate", [0.15, 0.3, 1.0])
    def test_each_row_has_its_share(self, rate):
        ids = some_ids()
        labels = Masking(TOKENIZER, rate)(ids, seeded()).labels
        usual = (ids > MASK).sum(1)
        wanted = (rate * usual).round().clamp(min=1)
        assert (labels != IGNORED).sum(1).equal(wanted.long())

    def test_never_a_special_piece(self):
        ids = some_ids()
        masked = Masking(TOKENIZER, 1.0)(ids, seeded())
        special = ids <= MASK
        assert masked.input_ids[special].equal(ids[special])
        assert (masked.labels[special] == IGNORED).all()

    def test_labels_are_what_was_hidden(self):
        ids = some_ids()
        labels = Masking(TOKENIZER, 0.3)(ids, seeded()).labels
        chosen = labels != IGNORED
        assert labels[chosen].equal(ids[chosen])

    def test_what_is_not_chosen_stays(self):
        ids = some_ids()
        masked = Masking(TOKENIZER, 0.3)(ids, seeded())
        left = masked.labels == IGNORED
        assert masked.input_ids[left].equal(ids[left])

    def test_every_place_is_as_likely(self):
        ids = torch.full((20_000, 12), 7)
        chosen = Masking(TOKENIZER, 0.25)(ids, seeded()).labels != IGNORED
        assert chosen.float().mean(0).tolist() == pytest.approx([0.25] * 12, abs=0.015)

    def test_at_least_one_of_a_short_row(self):
        labels = Masking(TOKENIZER, 0.15)(torch.tensor([[CLS, 9, SEP]]), seeded()).labels
        assert labels.tolist() == [[IGNORED, 9, IGNORED]]

    def test_a_row_with_nothing_to_hide_is_left_alone(self):
        ids = torch.tensor([[CLS, SEP, PAD], [CLS, 9, SEP]])
        masked = Masking(TOKENIZER, 0.5)(ids, seeded())
        assert masked.input_ids[0].equal(ids[0])
        assert (masked.labels[0] == IGNORED).all()

    def test_no_rows(self):
        masked = Masking(TOKENIZER)(torch.empty(0, 5, dtype=torch.int64), seeded())
        assert masked.labels.shape == (0, 5)


class TestFate:
    @pytest.mark.parametrize(("mask", "random"), [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.5, 0.2)])
    def test_shares_of_mask_random_and_unchanged(self, mask, random):
        ids = torch.full((4000, 50), 7)
        masked = Masking(TOKENIZER, 0.4, mask=mask, random=random)(ids, seeded())
        became = masked.input_ids[masked.labels != IGNORED]
        shares = [(became == MASK).float().mean().item(), (became == 7).float().mean().item()]
        same_by_chance = random / 52
        assert shares == pytest.approx([mask, 1 - mask - random + same_by_chance], abs=0.01)

    def test_a_random_piece_is_any_but_a_special_one(self):
        ids = torch.full((2000, 50), 7)
        masked = Masking(TOKENIZER, 1.0, mask=0.0, random=1.0)(ids, seeded())
        counts = masked.input_ids.flatten().bincount(minlength=57)
        assert (counts[:5] == 0).all()
        assert counts[5:].min() > 0.8 * counts[5:].float().mean()


class TestWholeWords:
    @pytest.mark.parametrize("seed", range(3))
    def test_a_word_is_hidden_with_all_its_pieces_or_not_at_all(self, seed):
        ids = some_ids(seed=seed)
        chosen = Masking(TOKENIZER, 0.3, whole_words=True)(ids, seeded(seed)).labels != IGNORED
        tokens = [[TOKENIZER.id_to_token(i) for i in row] for row in ids.tolist()]
        for row, line in zip(tokens, chosen.tolist(), strict=True):
            for i in range(1, len(row)):
                if row[i].startswith("##") and row[i - 1] not in SPECIAL:
                    assert line[i] == line[i - 1]

    def test_a_few_pieces_more_than_the_share_at_most(self):
        ids = some_ids()
        hidden = (Masking(TOKENIZER, 0.3, whole_words=True)(ids, seeded()).labels != IGNORED).sum(1)
        wanted = (0.3 * (ids > MASK).sum(1)).round()
        assert (hidden >= wanted).all()
        assert (hidden - wanted).float().mean() < 2

    def test_pieces_of_a_word_are_hidden_apart_without_it(self):
        ids = torch.tensor([[CLS, 5, 31, 32, 33, SEP]]).repeat(100, 1)
        hidden = (Masking(TOKENIZER, 0.5)(ids, seeded()).labels != IGNORED).sum(1)
        assert set(hidden.tolist()) == {2}


class TestReproducible:
    @pytest.mark.parametrize("whole_words", [False, True])
    def test_the_same_seed_gives_the_same(self, whole_words):
        masking = Masking(TOKENIZER, 0.3, whole_words=whole_words)
        first, second = masking(some_ids(), seeded(5)), masking(some_ids(), seeded(5))
        assert first.input_ids.equal(second.input_ids)
        assert first.labels.equal(second.labels)
        assert not first.labels.equal(masking(some_ids(), seeded(6)).labels)

    def test_neither_the_ids_nor_the_global_generator_change(self):
        ids = some_ids()
        kept, state = ids.clone(), torch.get_rng_state()
        Masking(TOKENIZER)(ids, seeded())
        assert ids.equal(kept)
        assert torch.get_rng_state().equal(state)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rate": 1.5}, "rate must be between 0 and 1, got 1.5"),
            ({"rate": 0.0}, "rate must be more than 0"),
            ({"mask": -0.1}, "mask must be between"),
            ({"mask": 0.8, "random": 0.3}, r"mask \+ random must be at most 1"),
        ],
    )
    def test_shares(self, options, message):
        with pytest.raises(ValueError, match=message):
            Masking(TOKENIZER, **options)

    @pytest.mark.parametrize(
        ("ids", "error", "message"),
        [
            ([[1, 2]], TypeError, "int64 tensor, got list"),
            (torch.ones(2, 2), TypeError, "got torch.float32"),
            (torch.ones(3, dtype=torch.int64), ValueError, r"\(batch, token\), got \(3,\)"),
            (torch.tensor([[57]]), ValueError, "between 0 and 56, .* got 57 to 57"),
            (torch.tensor([[-1, 3]]), ValueError, "got -1 to 3"),
        ],
    )
    def test_what_are_no_ids(self, ids, error, message):
        with pytest.raises(error, match=message):
            Masking(TOKENIZER)(ids, seeded())
