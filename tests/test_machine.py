"""What the machine is, and randomness that repeats."""

import random

import numpy as np
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
