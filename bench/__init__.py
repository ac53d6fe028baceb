"""Benchmarks: `spikeloom bench NAME` runs one. No other room imports this one."""

import warnings

warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # Norse, at its import
