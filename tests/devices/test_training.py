"""Training on a device: steps, precision, interruptions, and the measures around it."""

import copy
import signal

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_works
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn

import attnviz as av
from attnviz.data.wordpiece import SPECIAL
from attnviz.models import BertConfig, BertForPreTraining
from attnviz.training import distillation_loss, muon_and_adamw, train, warmup_linear
from attnviz.training.measure import guess_by_frequency, measure_masked

pytestmark = pytest.mark.slow

SIZES = {"vocab_size": 30, "d_model": 16, "n_layers": 2, "n_heads": 4, "d_ff": 32, "max_len": 12}


def make_model(**options):
    return BertForPreTraining(BertConfig.modern(**SIZES, **options))


def batch_of(step):
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(5, 30, (4, 8), generator=generator)
    hidden = torch.rand(4, 8, generator=generator) < 0.3
    hidden[:, 0] = True
    return {"ids": ids.masked_fill(hidden, 1), "more": (ids.masked_fill(~hidden, -100), [step])}


def loss_of(model, batch):
    assert batch["ids"].device == next(model.parameters()).device
    return model(batch["ids"], labels=batch["more"][0]).loss


OPTIMIZERS = {
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), 1e-2),
    "Muon": lambda model: muon_and_adamw(model, 1e-2),
    "SGD": lambda model: torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9),
}


def trained(model, optimizer="AdamW", steps=5, batch_of=batch_of, **options):
    model = model.train()
    options = {"schedule": warmup_linear(0.3), "show": False, **options}
    history = train(model, batch_of, loss_of, OPTIMIZERS[optimizer](model), steps=steps, **options)
    return history.losses, {n: t.detach().clone() for n, t in model.state_dict().items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_and_weights_are_those_of_the_cpu(device, optimizer):
    assert_works(device, lambda model: trained(model, optimizer), make_model())


def test_gradients_are_gathered_over_batches(device):
    assert_works(device, lambda model: trained(model, accumulate=2, clip=0.1), make_model())


def test_attention_is_seen_after_each_step(device):
    ids, seen = torch.tensor([[5, 6, 7]]).to(device), []

    def look(step, model):
        with torch.no_grad(), av.capture(model.eval()) as records:
            model(ids)
        seen.append(records[0].weights)

    trained(make_model().to(device), after_step=look)
    assert len(seen) == 5
    assert not torch.equal(seen[0], seen[-1])


class TestMixedPrecision:
    def test_computes_in_bfloat16_and_keeps_the_weights(self, device):
        dtypes = set()

        def note(module, inputs, output):
            dtypes.add(output.dtype)

        model = make_model().to(device)
        model.encoder.blocks[0].widen.register_forward_hook(note)
        mixed, weights = trained(model, bf16=True)
        assert dtypes == {torch.bfloat16}
        assert {t.dtype for t in weights.values()} == {torch.float32}
        torch.manual_seed(0)
        exact, _ = trained(make_model().to(device))
        assert mixed == pytest.approx(exact, rel=0.2)

    def test_of_the_written_out_attention(self, device):
        def run(model, x):
            with torch.autocast(device.type, torch.bfloat16):
                return model(x, need_weights=True)[0].float().sum()

        layer = av.layers.MultiHeadAttention(16, 4, rotary=True).to(device)
        run(layer, torch.randn(1, 5, 16).to(device)).backward()
        assert layer.qkv_proj.weight.grad.isfinite().all()


class TestCheckpoints:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("bf16", [False, True])
    def test_a_stopped_training_goes_on_as_if_it_never_had(self, device, tmp_path, optimizer, bf16):
        def stopping(step):
            if step == 3:
                signal.raise_signal(signal.SIGINT)
            return batch_of(step)

        whole = {"optimizer": optimizer, "steps": 7, "bf16": bf16}
        start = make_model(dropout=0.2).to(device)  # its random numbers must go on, too
        torch.manual_seed(1)
        wanted = trained(copy.deepcopy(start), **whole)
        file = tmp_path / "run.pt"
        torch.manual_seed(1)
        losses, _ = trained(copy.deepcopy(start), batch_of=stopping, checkpoint=file, **whole)
        assert len(losses) == 4
        torch.manual_seed(2)
        losses, weights = trained(make_model(dropout=0.2).to(device), checkpoint=file, **whole)
        assert losses == pytest.approx(wanted[0], rel=1e-5)
        torch.testing.assert_close(weights, wanted[1], atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("back", [False, True])
    def test_a_training_may_move_to_another_device(self, device, tmp_path, back):
        first, then = (device, "cpu") if back else ("cpu", device)
        file, start = tmp_path / "run.pt", make_model()
        wanted, _ = trained(copy.deepcopy(start), steps=6, schedule=None)
        trained(copy.deepcopy(start).to(first), steps=3, schedule=None, checkpoint=file)
        losses, _ = trained(make_model().to(then), steps=6, schedule=None, checkpoint=file)
        assert losses == pytest.approx(wanted, rel=1e-3)


class TestMeasures:
    def test_found_words_are_those_of_the_cpu(self, device):
        words = [*SPECIAL, *(f"w{i}" for i in range(30 - len(SPECIAL)))]
        tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
        windows = torch.randint(len(SPECIAL), 30, (70, 8))

        def run(model):
            return measure_masked(model, windows, tokenizer)

        assert_works(device, run, make_model())
        there = windows.to(device)
        model = make_model()
        assert measure_masked(model, there, tokenizer) == measure_masked(model, windows, tokenizer)
        guessed = guess_by_frequency(there, there, tokenizer)
        assert guessed == pytest.approx(guess_by_frequency(windows, windows, tokenizer))

    def test_distillation(self, device):
        inputs = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
        assert_works(device, distillation_loss, None, inputs)

    def test_time_and_memory(self, device):
        layer, x = nn.Linear(64, 64).to(device), torch.randn(64, 64, device=device)
        taken = av.timeit({"layer": lambda: F.relu(layer(x))}, rounds=3)
        assert taken["layer"].p50 > 0
        assert av.most_memory(lambda: layer(x)) >= 64 * 64 * 4

    def test_what_the_device_can(self, device):
        assert av.native_bf16(device) in (True, False)
        assert av.about()
