"""Noise of DeNS: its size, its probability, and its dependence on epoch, batch and place."""

import numpy as np
from stages import DENS, stage

from esen_flows.training.denoising import draw_noise, is_noised


def test_batches_are_noised_by_chance_and_only_for_denoising_networks():
    config = stage(**DENS, denoising_probability=0.3)
    assert abs(np.mean([is_noised(config, 0, batch) for batch in range(2000)]) - 0.3) < 0.03
    assert not any(is_noised(stage(), 0, batch) for batch in range(100))


def test_noise_has_the_configured_size():
    config = stage(**DENS, denoising_std_angstrom=0.2)
    noise = draw_noise(config, 0, 0, 0, 20000)
    assert noise.moved.all()
    assert abs(noise.displacement_angstrom.std() - 0.2) < 0.004
    some = draw_noise(stage(**DENS, denoising_atoms=0.25), 0, 0, 0, 20000)
    assert abs(some.moved.mean() - 0.25) < 0.01
    assert not some.displacement_angstrom[~some.moved].any()


def test_noise_is_a_function_of_epoch_batch_and_place():
    config = stage(**DENS)
    again = [draw_noise(config, 1, 2, 3, 4).displacement_angstrom for _ in range(2)]
    np.testing.assert_array_equal(*again)
    others = [(2, 2, 3), (1, 3, 3), (1, 2, 4)]
    assert all(not np.allclose(draw_noise(config, *where, 4).displacement_angstrom, again[0]) for where in others)
