"""Agreement with the neural-tangents package, which runs in an environment of its own (tools/neural_tangents.py)."""

import functools
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import kernels, models

ROOT = Path(__file__).parents[3]
PEER = ROOT / ".venv-nt" / "bin" / "python"
W2, B2 = 1.5, 0.1
TOLERANCE = 1e-5  # of the largest entry; the package rounds at 1e-8 where inputs coincide

pytestmark = pytest.mark.skipif(
    not PEER.exists(), reason="NO NEURAL-TANGENTS: nothing was compared; python tools/neural_tangents.py installs it"
)


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


class Residual(nn.Module):
    def __init__(self, *block):
        super().__init__()
        self.block = nn.Sequential(*block)

    def forward(self, x):
        return x + self.block(x)


def conv(inputs, outputs, size=3, stride=1, padding=None, mode="zeros"):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2 if padding is None else padding, padding_mode=mode)


def mlp(act):
    return nn.Sequential(nn.Linear(12, 32), act, nn.Linear(32, 48), act, nn.Linear(48, 3))


def gap(*layers, channels=16):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


RELU = nn.ReLU()
ACTIVATIONS = {"relu": RELU, "erf": Erf(), "gelu": nn.GELU(), "leaky_relu": nn.LeakyReLU(0.2), "sine": Sine()}
STANDARD = {"parametrization": "standard"}
CASES = {
    **{name: (mlp(act), {}) for name, act in ACTIVATIONS.items()},
    **{f"{name}, standard": (mlp(act), STANDARD) for name, act in ACTIVATIONS.items()},
    "residual mlp": (nn.Sequential(nn.Linear(12, 32), Residual(RELU, nn.Linear(32, 32)), RELU, nn.Linear(32, 3)), {}),
    "layer norm": (nn.Sequential(nn.Linear(12, 32), nn.LayerNorm(32), RELU, nn.Linear(32, 32), nn.LayerNorm(32),
                                 Erf(), nn.Linear(32, 3)), {}),
    "dropout": (nn.Sequential(nn.Linear(12, 32), RELU, nn.Dropout(0.2), nn.Linear(32, 32), RELU, nn.Dropout(0.2),
                              nn.Linear(32, 3)), {}),
    "flatten": (nn.Sequential(conv(3, 16), RELU, conv(16, 16), RELU, nn.Flatten(), nn.Linear(576, 3)), {}),
    "flatten, strides": (nn.Sequential(conv(3, 16, stride=2, padding=0), RELU, conv(16, 16, 2, padding=0), Erf(),
                                       nn.Flatten(), nn.Linear(16, 3)), {}),
    "average pooling": (nn.Sequential(conv(3, 16), RELU, nn.AvgPool2d(2), conv(16, 16), RELU, nn.Flatten(),
                                      nn.Linear(144, 3)), {}),
    "global pooling": (gap(conv(3, 16), RELU, conv(16, 16), RELU), {}),
    "global pooling, strides": (gap(conv(3, 16, stride=2, padding=0), RELU, conv(16, 16, 2, padding=0), RELU), {}),
    "global pooling, circular": (gap(conv(3, 16, mode="circular"), RELU, conv(16, 16, mode="circular"), Erf()), {}),
    "global pooling, gelu": (gap(conv(3, 16), nn.GELU()), {}),
    "global pooling, standard": (gap(conv(3, 16), RELU, conv(16, 24), RELU, channels=24), STANDARD),
    "residual cnn": (gap(conv(3, 16), Residual(RELU, conv(16, 16), RELU, conv(16, 16)), RELU), {}),
    "layer norm over space": (gap(conv(3, 16), nn.LayerNorm([16, 6, 6]), RELU, conv(16, 16), RELU), {}),
    "dropout in a cnn": (gap(conv(3, 16), RELU, nn.Dropout(0.2), conv(16, 16), RELU), {}),
}  # fmt: skip


def finite():
    """A network that is not wide, with data of its own."""
    draw = torch.Generator().manual_seed(1)
    network = models.mlp((5,), 2, width=16, depth=2, activation="tanh", generator=draw).double()
    x, y, test = (torch.randn(*shape, generator=draw).double() for shape in ((6, 5), (6, 2), (4, 5)))
    return network, x, y, test


def tangent_kernel(network, a, b):
    return kernels.empirical_ntk(network, a, b, outputs="full").detach().numpy()


@pytest.fixture(scope="module")
def data():
    draw = functools.partial(np.random.default_rng(0).standard_normal)
    network, x, y, test = finite()
    return {
        "finite.gram": tangent_kernel(network, x, x), "finite.cross": tangent_kernel(network, test, x),
        "finite.start": network(x).detach().numpy(), "finite.start_test": network(test).detach().numpy(),
        "finite.targets": y.numpy(),
        "rows1": draw((5, 12)), "rows2": draw((3, 12)), "images1": draw((4, 6, 6, 3)), "images2": draw((3, 6, 6, 3)),
        "train": draw((8, 12)), "targets": draw((8, 2)), "test": draw((4, 12)), "times": np.array([0.0, 3.0, 50.0]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def theirs(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("neural_tangents")
    np.savez(folder / "given.npz", **data)
    script = Path(__file__).with_name("neural_tangents_reference.py")
    quick = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [PEER, "-W", "ignore", script, folder / "given.npz", folder / "found.npz"],
        capture_output=True, text=True, env=os.environ | quick,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.load(folder / "found.npz")


def inputs(data, model):
    if isinstance(model[0], nn.Linear):
        return torch.as_tensor(data["rows1"]), torch.as_tensor(data["rows2"])
    return tuple(torch.as_tensor(data[name]).permute(0, 3, 1, 2) for name in ("images1", "images2"))


def agree(ours, peer):
    peer = torch.as_tensor(peer)
    assert ours.shape == peer.shape and ours.dtype == torch.float64
    torch.testing.assert_close(ours, peer, rtol=0, atol=TOLERANCE * float(peer.abs().max()))


@pytest.mark.parametrize("name", CASES)
def test_kernels_are_those_of_the_package(name, data, theirs):
    model, settings = CASES[name]
    kernel = kernels.infinite(model.train(), sigma_w2=W2, sigma_b2=B2, **settings)
    x1, x2 = inputs(data, model)
    for place, other in ((name, x2), (f"{name}.self", None)):
        found = kernel(x1, other)
        agree(found.nngp, theirs[f"{place}.nngp"])
        agree(found.ntk, theirs[f"{place}.ntk"])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_recursion_without_a_network_gives_the_same(name, data, theirs):
    act = {"sine": "sin", "leaky_relu": nn.LeakyReLU(0.2)}.get(name, name)
    found = kernels.mlp_kernels(
        torch.as_tensor(data["rows1"]), torch.as_tensor(data["rows2"]), depth=2, act=act, sigma_w2=W2, sigma_b2=B2
    )
    agree(found.nngp, theirs[f"{name}.nngp"])
    agree(found.ntk, theirs[f"{name}.ntk"])


def test_a_width_multiplier_is_the_packages_scaling_of_hidden_widths(data, theirs):
    wide = nn.Sequential(nn.Linear(12, 128), RELU, nn.Linear(128, 192), RELU, nn.Linear(192, 3))
    kernel = kernels.infinite(wide, sigma_w2=W2, sigma_b2=B2, parametrization="standard", width_multiplier=4.0)
    agree(kernel(*inputs(data, wide)).ntk, theirs["wider, standard.ntk"])
    agree(kernel(inputs(data, wide)[0]).ntk, theirs["wider, standard.self.ntk"])


@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_predictions_are_those_of_the_package_at_any_time(get, ridge, data, theirs):
    x, y, test = (torch.as_tensor(data[name]) for name in ("train", "targets", "test"))
    kernel = functools.partial(kernels.mlp_kernels, depth=2, act="erf", sigma_w2=W2, sigma_b2=B2)
    for t in (*data["times"], None):
        # the package's loss is the mean over examples and outputs of half the square
        found = kernels.predict(kernel, x, y, test, t, lr=0.7 / y.numel(), ridge=ridge, get=get)
        agree(found.mean, theirs[f"predict.{ridge}.{get}.{t}.mean"])
        agree(found.covariance, theirs[f"predict.{ridge}.{get}.{t}.covariance"])


def test_a_linearized_networks_predictions_are_those_of_the_package(data, theirs):
    network, x, y, test = finite()
    for t in data["times"]:
        found = kernels.linear_prediction(network, x, y, test, float(t), lr=0.7 / y.numel())
        agree(found, theirs[f"linear.{t}"])
