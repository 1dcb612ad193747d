"""What the neural-tangents package says: run by test_neural_tangents.py in an environment of its own.

    python neural_tangents_reference.py INPUT.npz OUTPUT.npz

INPUT holds `rows1`, `rows2` (n, features) and `images1`, `images2` (n, height, width, channels), and for the
predictions `train`, `targets`, `test` and `times`, and a finite network's `finite.gram`, `.cross` (n, n, C, C) and
`.start`, `.start_test`, `.targets` (n, C). OUTPUT holds CASE.nngp, CASE.ntk of both against each other, and
CASE.self.nngp, CASE.self.ntk of the first against itself. Everything is float64.
"""

import sys

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import neural_tangents as nt  # noqa: E402
from neural_tangents import stax  # noqa: E402

W, B = 1.5**0.5, 0.1**0.5  # square roots of the variances that the test gives


def dense(units, **settings):
    return stax.Dense(units, W_std=W, b_std=B, **settings)


def conv(channels, size=3, strides=(1, 1), padding="SAME", **settings):
    return stax.Conv(channels, (size, size), strides, padding, W_std=W, b_std=B, **settings)


def mlp(act, **settings):
    return stax.serial(dense(32, **settings), act, dense(48, **settings), act, dense(3, **settings))


def residual(block):
    return stax.serial(stax.FanOut(2), stax.parallel(block, stax.Identity()), stax.FanInSum())


STANDARD = {"parameterization": "standard"}
RELU = stax.Relu()
ACTIVATIONS = {
    "relu": RELU,
    "erf": stax.Erf(),
    "gelu": stax.Gelu(approximate=False),
    "leaky_relu": stax.LeakyRelu(0.2),
    "sine": stax.Sin(),
}
MLPS = {
    **{name: mlp(act) for name, act in ACTIVATIONS.items()},
    **{f"{name}, standard": mlp(act, **STANDARD) for name, act in ACTIVATIONS.items()},
    "wider, standard": stax.serial(
        dense(32, s=(1, 4), **STANDARD), RELU, dense(48, s=(4, 4), **STANDARD), RELU, dense(3, s=(4, 1), **STANDARD)
    ),
    "residual mlp": stax.serial(dense(32), residual(stax.serial(RELU, dense(32))), RELU, dense(3)),
    "layer norm": stax.serial(dense(32), stax.LayerNorm(eps=1e-5), RELU, dense(32), stax.LayerNorm(eps=1e-5),
                              stax.Erf(), dense(3)),
    "dropout": stax.serial(dense(32), RELU, stax.Dropout(0.8), dense(32), RELU, stax.Dropout(0.8), dense(3)),
}  # fmt: skip
CNNS = {
    "flatten": stax.serial(conv(16), RELU, conv(16), RELU, stax.Flatten(), dense(3)),
    "flatten, strides": stax.serial(conv(16, strides=(2, 2), padding="VALID"), RELU, conv(16, 2, padding="VALID"),
                                    stax.Erf(), stax.Flatten(), dense(3)),
    "average pooling": stax.serial(conv(16), RELU, stax.AvgPool((2, 2), (2, 2)), conv(16), RELU, stax.Flatten(),
                                   dense(3)),
    "global pooling": stax.serial(conv(16), RELU, conv(16), RELU, stax.GlobalAvgPool(), dense(3)),
    "global pooling, strides": stax.serial(conv(16, strides=(2, 2), padding="VALID"), RELU,
                                           conv(16, 2, padding="VALID"), RELU, stax.GlobalAvgPool(), dense(3)),
    "global pooling, circular": stax.serial(conv(16, padding="CIRCULAR"), RELU, conv(16, padding="CIRCULAR"),
                                            stax.Erf(), stax.GlobalAvgPool(), dense(3)),
    "global pooling, gelu": stax.serial(conv(16), ACTIVATIONS["gelu"], stax.GlobalAvgPool(), dense(3)),
    "global pooling, standard": stax.serial(conv(16, **STANDARD), RELU, conv(24, **STANDARD), RELU,
                                            stax.GlobalAvgPool(), dense(3, **STANDARD)),
    "residual cnn": stax.serial(conv(16), residual(stax.serial(RELU, conv(16), RELU, conv(16))), RELU,
                                stax.GlobalAvgPool(), dense(3)),
    "layer norm over space": stax.serial(conv(16), stax.LayerNorm(axis=(1, 2, 3), eps=1e-5), RELU, conv(16), RELU,
                                         stax.GlobalAvgPool(), dense(3)),
    "dropout in a cnn": stax.serial(conv(16), RELU, stax.Dropout(0.8), conv(16), RELU, stax.GlobalAvgPool(), dense(3)),
}  # fmt: skip


def main(given, wanted):
    data, found = np.load(given), {}
    for cases, kind in ((MLPS, "rows"), (CNNS, "images")):
        x1, x2 = data[f"{kind}1"], data[f"{kind}2"]
        for name, (_, _, kernel) in cases.items():
            kernel = jax.jit(kernel, static_argnames="get")
            for place, other in ((name, x2), (f"{name}.self", None)):
                both = kernel(x1, other, get=("nngp", "ntk"))
                found[f"{place}.nngp"], found[f"{place}.ntk"] = both.nngp, both.ntk

    kernel = MLPS["erf"][2]
    for ridge in (0.0, 1e-2):
        ensemble = nt.predict.gradient_descent_mse_ensemble(
            kernel, data["train"], data["targets"], learning_rate=0.7, diag_reg=ridge
        )
        for get in ("ntk", "nngp"):
            for t in (*data["times"], None):
                at = ensemble(t=t, x_test=data["test"], get=get, compute_cov=True)
                found[f"predict.{ridge}.{get}.{t}.mean"], found[f"predict.{ridge}.{get}.{t}.covariance"] = at

    linear = nt.predict.gradient_descent_mse(
        data["finite.gram"], data["finite.targets"], learning_rate=0.7, trace_axes=()
    )
    starts = data["finite.start"], data["finite.start_test"]
    for t in data["times"]:
        _, found[f"linear.{t}"] = linear(t, *starts, data["finite.cross"])
    np.savez(wanted, **{name: np.asarray(value) for name, value in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
