"""What the machine is, and randomness that repeats."""

import random

import numpy as np
import pytest
import torch

import attnviz as av


def test_the_device_is_one_torch_can_use():
    assert torch.ones(1, device=av.device()).sum() == 1


def test_the_same_seed_gives_the_same_numbers():
    def draw():
        av.seed(7)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()


def test_about_names_versions_and_device():
    assert torch.__version__ in av.about()
    assert av.device().type in av.about()


@pytest.mark.parametrize(
    ("able", "native"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, True),
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_bf16": True}, False),  # half as fast as float32
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),  # twice as fast
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
        ({"arm_bf16": True}, True),
        ({"avx2": True}, False),
    ],
)
def test_bfloat16_is_native_to_a_cpu_that_multiplies_it_faster(monkeypatch, able, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert av.native_bf16(torch.device("cpu")) is native


def test_the_pretend_device_of_other_tests_is_not_here():
    assert av.device().type in ("cpu", "cuda", "mps")
    assert not hasattr(torch, "pretend")
    assert torch._C._get_privateuse1_backend_name() == "privateuseone"
