"""One thread is enough for small tensors, and two would wait for each other on a busy machine."""

import torch

torch.set_num_threads(1)
