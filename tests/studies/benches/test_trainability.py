import torch

from phenoscope import data
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import trainability as bench


def test_networks_start_at_the_variances_asked_for_and_fleets_train_them():
    split = data.digits(train=300)
    settings = dict(depth=4, sigma_b2=0.05, width=64)
    nets = [bench.network(Lab(0), bench.mlp, split, sigma_w2=value, **settings) for value in (1.0, 4.0)]
    for net, expected in zip(nets, (1.0, 4.0), strict=True):
        weights = torch.cat([net.get_submodule(f"linear{i}").weight.detach() for i in range(1, 5)])
        # 4 x 4096 weights: a standard error of a percent
        assert abs(64 * float(weights.square().mean()) / expected - 1) < 0.05
    scores = bench.accuracies(Lab(0), nets, split, steps=60, name="test")
    assert len(scores) == 2 and min(scores) > 0.3  # chance is 0.1
    assert scores == bench.accuracies(Lab(0), nets, split, steps=60, name="test")
