"""Randomness without state: the generators of a step are seeded from the step's number."""

from __future__ import annotations

import random

import numpy as np
import torch

__all__ = ["StepSeeder", "mix_seed"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: its multiples lie far apart


def mix_seed(*numbers: int) -> int:
    """Mix whole numbers into one well spread 64-bit seed; the order counts.

    Neighbouring inputs such as (seed, step) and (seed, step + 1) give unrelated seeds.

    Args:
        numbers: any whole numbers; each counts modulo 2**64.

    Returns:
        A number in [0, 2**64).

    Source: the finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
    """
    state = 0
    for number in numbers:
        state = (state + number * _GOLDEN + 0xD1B54A32D192ED03) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


class StepSeeder:
    """Seeds every global generator from (seed, step, rank), so that a step draws the same after any resume.

    These are ``random``, ``numpy.random`` and torch's generators of the CPU and of the current accelerator. Four
    numbers decide what a step draws and all of them are known on resume, so no generator state is ever saved.

    Args:
        seed: the run's seed.
        rank: this process; ranks draw differently.
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed = seed
        self.rank = rank
        self._start = mix_seed(seed, rank)
        self._step: int | None = None
        self._mixed = 0
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self._device = torch.get_device_module(accelerator) if accelerator is not None else None

    def seed_python(self, step: int) -> None:
        """Seed ``random`` and ``numpy.random``, once for the whole step: this is the dearer part.

        Args:
            step: the iteration.
        """
        seed = self._of_step(step)
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)

    def seed_torch(self, step: int, stream: int = 0) -> None:
        """Seed torch's generators.

        Args:
            step: the iteration.
            stream: which of the independent streams of this step, so that drawing more in one moment of the step
                does not move what another moment draws.
        """
        seed = (self._of_step(step) + stream * _GOLDEN) & _MASK
        torch.default_generator.manual_seed(seed)
        if self._device is not None:
            self._device.manual_seed(seed)

    def _of_step(self, step: int) -> int:
        if step != self._step:
            self._step, self._mixed = step, mix_seed(self._start ^ step)
        return self._mixed
