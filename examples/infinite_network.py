"""What would your network predict if it were infinitely wide, and how sure would it be? On scikit-learn's digits.

No network is trained: `kernels.infinite` makes the kernels of the limit, and `kernels.predict` says what the mean of
infinitely many such networks predicts after training on squared error, and how far single ones lie from it.

    python examples/infinite_network.py [--train 200] [--test 200] [--time 10]
"""

from __future__ import annotations

import argparse
import math

from torch import nn

from phenoscope import kernels
from phenoscope.data import digits

NETWORKS = {
    "fully connected": nn.Sequential(
        nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    ),
    "convolutional": nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 10),
    ),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Predict with each network's limit, and print; {network: what was found}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=200, help="how many images to learn from")
    parser.add_argument("--test", type=int, default=200, help="how many to predict")
    parser.add_argument("--time", type=float, default=math.inf, help="how long to train; to the end unless said")
    options = parser.parse_args(arguments)
    split = digits(generator=0)
    x, labels = (part[: options.train] for part in split.train)
    test, truth = (part[: options.test] for part in split.test)
    targets = nn.functional.one_hot(labels, 10).double() - 0.1  # centered: the ensemble's mean starts at zero
    t = None if math.isinf(options.time) else options.time

    found = {}
    print(f"{options.train} digits to learn from, {options.test} to tell\n")
    print(f"{'infinitely wide network':26}{'right':>8}{'surer half':>13}{'other half':>13}{'largest std':>13}")
    for name, network in NETWORKS.items():
        kernel = kernels.infinite(network, sigma_w2=2.0, sigma_b2=0.01)
        ensemble = kernels.predict(kernel, x, targets, test, t)
        right = (ensemble.mean.argmax(1) == truth).double()
        surest = ensemble.std.argsort()
        half = len(surest) // 2
        found[name] = {
            "right": float(right.mean()),
            "surer half": float(right[surest[:half]].mean()),
            "other half": float(right[surest[half:]].mean()),
            "largest std": float(ensemble.std.max()),
        }
        *shares, std = found[name].values()
        print(f"{name:26}{shares[0]:8.1%}{shares[1]:13.1%}{shares[2]:13.1%}{std:13.3f}")
    return found


if __name__ == "__main__":
    main()
