from functools import partial

import numpy as np
import torch

from phenoscope import robust
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import adversarial_digits as bench


def test_seeds_have_splits_of_their_own_from_0_to_1():
    parts = bench.splits(Lab(0), bench.digits, 2)
    assert [len(part.train[0]) for part in parts] == [1000, 1000] and len(parts[0].test[0]) == 797
    assert parts[0].range == (0, 1) and not torch.equal(parts[0].train[1], parts[1].train[1])


def test_arms_begin_as_the_same_networks():
    lab, parts = Lab(0), bench.splits(Lab(0), bench.digits, 2)
    losses = [
        bench.trained(lab, bench.mlp, parts, objective=objective, epochs=1).history.loss
        for objective in (None, partial(robust.adversarial_loss, eps=0.0, steps=1))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-3)  # an attack of radius 0 is none


def test_every_network_is_evaluated_on_its_own_test_part():
    lab, parts = Lab(0), bench.splits(Lab(0), bench.digits, 2)
    fleet = bench.trained(lab, bench.mlp, parts, epochs=3)
    found = bench.evaluated(lab, fleet, parts, eps=0.02)
    clean = [float(fleet.accuracy(part.test)[seed]) for seed, part in enumerate(parts)]
    np.testing.assert_allclose(1 - found.natural, clean)
    assert (found.robust_accuracy < 1 - found.natural).all() and found.seed.values.tolist() == [0, 1]
