import random
from collections import Counter

import numpy as np
import torch

from hookline.engine.randomness import StepSeeder, mix_seed


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed(seed, rank, step, stream=0):
    seeder = StepSeeder(seed, rank)
    seeder.seed_python(step)
    seeder.seed_torch(step, stream)


def test_same_numbers_give_the_same_draws():
    seed(7, 1, 100)
    first = draws()
    draws()
    seed(7, 1, 100)
    assert draws() == first


def test_seed_rank_and_step_all_count():
    seen = set()
    for numbers in [(7, 1, 5), (8, 1, 5), (7, 2, 5), (7, 1, 6), (1, 7, 5), (7, 5, 1)]:
        seed(*numbers)
        seen.update(draws())
    assert len(seen) == 18


def test_streams_of_a_step_move_torch_only():
    seed(0, 0, 3, stream=0)
    first = draws()
    seed(0, 0, 3, stream=1)
    second = draws()
    assert first[:2] == second[:2]
    assert first[2] != second[2]


def test_mixed_seeds_of_neighbours_are_spread():
    seeds = [mix_seed(0, step) for step in range(4096)]
    assert len(set(seeds)) == 4096
    assert max(seeds) < 2**64
    bits = Counter(bit for seed in seeds for bit in range(64) if seed >> bit & 1)
    assert all(1800 < bits[bit] < 2300 for bit in range(64))


def test_negative_and_large_seeds_work():
    assert mix_seed(-1) != mix_seed(1)
    assert mix_seed(2**64 + 3) == mix_seed(3)
    seed(-5, 0, 0)
    seed(2**70, 0, 2**40)
