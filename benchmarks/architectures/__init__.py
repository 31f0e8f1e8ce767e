"""Every architecture that is at hand, captured and edited: `python -m benchmarks.architectures`."""
