"""The machine at hand: which device to use, what is installed, and reproducible randomness."""

import os
import platform
import random
from importlib.metadata import version

import numpy as np
import torch

from attnviz.checks import check_whole


def device() -> torch.device:
    """The fastest device torch can use here: CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def native_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself, so that it is faster than float32 there.

    On a CPU this takes a matrix unit (AMX), ARM's instructions or AMD's AVX-512: measured on two
    cores each, matrices of 512 × 512 multiply 2.2 times as fast as in float32 on an EPYC (Zen 4)
    and half as fast on a Xeon with AVX-512's instructions but without AMX.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    amd = able.get("cpu_name", "").startswith("AMD") and able.get("avx512_bf16", False)
    return amd or any(able.get(name, False) for name in ("amx_bf16", "arm_bf16"))


def seed(number: int) -> None:
    """Make what follows repeatable: seeds Python's, NumPy's and torch's random generators.

    number: 0 to 4,294,967,295.
    Raises TypeError or ValueError for another; then none of them is touched.
    """
    number = check_whole("number", number, 0, 2**32 - 1)
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def about() -> str:
    """One line each on Python, the libraries the lessons rest on, and the device."""
    here = device()
    name = {"cuda": lambda: torch.cuda.get_device_name(), "mps": lambda: "Apple GPU"}.get(
        here.type, lambda: f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    )()
    libraries = ", ".join(f"{p} {version(p)}" for p in ("attnviz", "torch", "numpy", "anywidget"))
    return f"Python {platform.python_version()} on {platform.system()}\n{libraries}\n{here}: {name}"
