"""Capture and restore of random states."""
import random

import numpy as np
import torch

from magnet_plugin.distributed.random_state import capture_random_state, restore_random_state

from ..helpers.toy_solver import Dropout


def test_all_generators_are_restored() -> None:
    model = torch.nn.Sequential(Dropout())
    state = capture_random_state(model)

    def draw() -> tuple:
        return random.random(), float(np.random.rand()), float(torch.rand(())), model[0](torch.ones(9)).tolist()
    first, second = draw(), draw()
    assert all(one != two for one, two in zip(first, second, strict=True))
    restore_random_state(state, model)
    assert draw() == first
