import pytest
import torch

from phenoscope import data, kernels, models
from phenoscope.core.errors import InputError
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import wide_nets as bench


def test_examples_are_of_the_first_classes_with_one_hot_labels():
    (x, y), (test, test_y) = bench.few_examples(Lab(0), bench.digits, n=40, classes=3, seed=0)
    assert x.shape == test.shape == (40, 1, 8, 8) and y.shape == test_y.shape == (40, 3)
    assert (y.sum(1) == 1).all() and (y.sum(0) > 0).all()
    with pytest.raises(InputError, match="has not all of classes"):
        bench.few_examples(Lab(0), bench.digits, n=2, classes=10, seed=0)


def test_networks_have_three_ntk_layers_of_the_width():
    pair, _ = bench.few_examples(Lab(0), bench.digits, n=8, classes=2, seed=0)
    net = bench.network(Lab(0), bench.mlp, pair, width=24, seed=0)
    layers = [module for module in net.modules() if isinstance(module, models.NTKLinear)]
    assert [layer.out_features for layer in layers] == [24, 24, 2]
    assert all(layer.sigma_w2 == pytest.approx(2.25) and layer.sigma_b2 == pytest.approx(0.01) for layer in layers)


def test_the_critical_rate_divides_descent_that_converges_from_descent_that_does_not():
    pair, _ = bench.few_examples(Lab(0), lambda: data.digits(), n=16, classes=2, seed=0)
    x, y = (part.double() for part in pair)
    net = bench.network(Lab(0), bench.mlp, (x, y), width=24, seed=0)
    rate, start = bench.critical_rate(net, x), float(bench.half_squares(net(x), y).detach())
    for factor, grows in ((0.98, False), (1.1, True)):
        after = kernels.linear_prediction(net, x, y, x, 400, lr=factor * rate, flow=False)
        assert (float(bench.half_squares(after, y)) > start) == grows


def test_losses_are_sums():
    f, y = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert float(bench.half_squares(f, y)) == pytest.approx(1.5)
    assert float(bench.entropy_sum(f, y)) == pytest.approx(2 * float(torch.nn.functional.cross_entropy(f, y)))
