"""Triple descent: error peaks at the input dimension and at the parameters (d'Ascoli, Sagun, Biroli, NeurIPS 2020)."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import data, measure, models, stats, theory, train
from ...lab import Study, not_applicable

if TYPE_CHECKING:
    import plotly.graph_objects

ACTIVATIONS = ("identity", "tanh", "relu", "abs")  # from the most linear to the least
WEAK, STRONG = 1e-4, 0.1
ENSEMBLE, RIDGE = "tanh, mean of {}", "tanh, ridge 0.1"
TEST = 1000

tanh_network = functools.partial(models.mlp, width=20, depth=1, activation="tanh")

study = Study(
    "triple-descent",
    smoke=dict(d=15, p=150, ns=(6, 15, 75, 150, 600), seeds=3, networks=1, steps=100),
    gpu=dict(
        d=100, p=1000, ns=(10, 30, 60, 100, 150, 250, 500, 750, 1000, 1500, 3000, 10000), seeds=100, networks=20,
        steps=20000, model=functools.partial(models.mlp, width=10, depth=1, activation="tanh"),
    ),
)  # fmt: skip


@study.experiment
def experiment(
    lab,
    *,
    model=tanh_network,
    d: int = 30,
    p: int = 600,
    ns: tuple[int, ...] = (6, 15, 30, 45, 90, 150, 240, 420, 600, 900, 2400),
    snr: float = 0.2,
    ensembles: int = 8,
    seeds: int = 20,
    networks: int = 3,
    steps: int = 1500,
) -> xr.Dataset:
    """Fits noisy linear labels by ridge regression on random features, and by networks, by number of samples.

    Args:
        model: factory of networks that are trained beside the random features, from `d` numbers to one.
        d: input dimensions.
        p: random features.
        ns: numbers of samples; `d`, `5 d` and `p` must be among them.
        snr: variance of the labels' signal over that of their noise.
        ensembles: random-feature models whose mean is tested beside one alone.
        seeds: repetitions of the random features.
        networks: networks trained whole at each number of samples, each in a repetition of its own.
        steps: full-batch updates of Adam for each.
    """
    common = dict(d=d, ns=ns, snr=snr)
    found = lab.map(one_draw, [dict(seed=seed, p=p, ensembles=ensembles, **common) for seed in range(seeds)])
    result = xr.concat(found, "seed").assign_coords(seed=range(seeds))
    (spectrum,) = lab.map(eigenvalues, [dict(d=d, p=p, ns=ns)])
    result = result.merge(spectrum).assign(d=d, p=p)
    if networks:
        cells = [dict(model=model, seed=seed, steps=steps, **common) for seed in range(networks)]
        trained = xr.concat(lab.map(one_network, cells), "network_seed")
        result = result.merge(trained.assign_coords(network_seed=range(networks)))
    return result


def one_draw(lab, *, d, p, ns, snr, ensembles, seed) -> xr.Dataset:
    """All activations on the same samples, with the same random weights."""
    curve = functools.partial(
        theory.random_features_curve, d=d, p=p, ns=ns, snr=snr, test=TEST, generator=lab.seed("draw", seed),
        device=lab.device,
    )  # fmt: skip
    tanh = curve("tanh", ridge=(WEAK, STRONG), ensembles=ensembles).error.squeeze("draw", drop=True)
    rows = {}
    for name in ACTIVATIONS:
        single = tanh.sel(ridge=WEAK, ensemble=1) if name == "tanh" else curve(name, ridge=WEAK).error.squeeze()
        rows[name] = single.values
    rows[ENSEMBLE.format(ensembles)] = tanh.sel(ridge=WEAK, ensemble=ensembles).values
    rows[RIDGE] = tanh.sel(ridge=STRONG, ensemble=1).values
    return xr.Dataset(
        {"error": (("setting", "n"), np.stack(list(rows.values())))}, {"setting": list(rows), "n": list(ns)}
    )


def eigenvalues(lab, *, d, p, ns) -> xr.Dataset:
    """The smallest nonzero eigenvalue of tanh features, and that of their linear part, which explain the two peaks."""
    both = [theory.random_features_spectrum("tanh", d=d, p=p, n=n, generator=lab.seed("spectrum")) for n in ns]
    columns = {name: ("n", [float(pair[part][0]) for pair in both]) for part, name in enumerate(("whole", "linear"))}
    return xr.Dataset({f"smallest_eigenvalue_{name}": column for name, column in columns.items()}, {"n": list(ns)})


def one_network(lab, *, model, d, ns, snr, seed, steps) -> xr.Dataset:
    """Networks trained whole, on samples of the same law."""
    rule = data.teacher(d, noise=1 / math.sqrt(snr), generator=lab.seed("teacher", seed))
    x_test = torch.randn(TEST, d, generator=torch.Generator().manual_seed(lab.seed("test", seed))).to(lab.device)

    def fit(sample, *, generator):
        network = train.build(model, shape=(d,), num_classes=1, generator=generator).to(lab.device)
        adam = functools.partial(torch.optim.Adam, lr=1e-2)
        train.fit(
            network, sample, steps=steps, optimizer=adam, loss_fn=squared_error, batch_size=None,
            schedule=train.linear_decay(steps),
        )  # fmt: skip
        return network

    def loss(network, sample):
        return squared_error(train.outputs(network, sample[0]), sample[1].to(lab.device))

    found = measure.sample_size_curve(
        fit, rule.sample, ns, repeats=1, generator=lab.seed("network", seed),
        scores={
            "network_error": lambda network, _: loss(network, (x_test, rule(x_test))),
            "network_training_error": loss,
        },
    )  # fmt: skip
    return found.squeeze("repeat", drop=True)


def squared_error(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (outputs.squeeze(-1) - y).square().mean()


@study.claim("identity-peaks-at-D-abs-at-P-identity")
def peak_of_identity(result: xr.Dataset) -> xr.DataArray:
    return ratio(result, "identity", "d", "p")


@study.claim("identity-peaks-at-D-abs-at-P-abs")
def peak_of_abs(result: xr.Dataset) -> xr.DataArray:
    return ratio(result, "abs", "d", "p")


@study.claim("ensembling-kills-only-nonlinear")
def shrinking_by_ensemble(result: xr.Dataset) -> xr.DataArray:
    if missing := lacking(result):
        return not_applicable(missing)
    if ENSEMBLE.format(8) not in result.setting:
        return not_applicable("no ensemble of 8 was tested")
    at_p, at_d = (result.error.sel(n=int(result[place])) for place in ("p", "d"))
    table = [each.sel(setting=name).values for each in (at_p, at_d) for name in ("tanh", ENSEMBLE.format(8))]
    values = np.stack(table)

    def excess(seeds, axis=-1):
        one_p, all_p, one_d, all_d = np.median(values[:, np.asarray(seeds, dtype=int)], axis=-1)
        return one_p / all_p / (one_d / all_d)

    return xr.DataArray(stats.bootstrap(np.arange(values.shape[1]), excess, generator=0).low)


@study.claim("ridge-kills-only-nonlinear-strong")
def peaks_under_strong_ridge(result: xr.Dataset) -> xr.DataArray:
    return ratio(result, RIDGE, "d", "p")


@study.claim("ridge-kills-only-nonlinear-weak")
def peaks_under_weak_ridge(result: xr.Dataset) -> xr.DataArray:
    return ratio(result, "tanh", "d", "p")


@study.claim("two-peaks-coexist-linear")
def linear_peak(result: xr.Dataset) -> xr.DataArray:
    return ratio(result, "tanh", "d", "between")


@study.claim("two-peaks-coexist-nonlinear")
def nonlinear_peak(result: xr.Dataset) -> xr.DataArray:
    return ratio(result, "tanh", "p", "between")


@study.claim("two-peaks-coexist-order")
def order_by_linearity(result: xr.Dataset) -> xr.DataArray:
    if missing := lacking(result):
        return not_applicable(missing)
    ranked = sorted(ACTIVATIONS, key=theory.linearity_ratio, reverse=True)
    logs = [float(np.log(ratio(result, name, "d", "p"))) for name in ranked]
    return xr.DataArray(-np.diff(logs).max())


def places(result: xr.Dataset) -> dict[str, int]:
    """The numbers of samples that claims are about."""
    return {"d": int(result.d), "p": int(result.p), "between": 5 * int(result.d)}


def lacking(result: xr.Dataset) -> str:
    missing = [n for n in places(result).values() if n not in result.n]
    return f"{missing[0]} samples were not tried" if missing else ""


def ratio(result: xr.Dataset, setting: str, above: str, below: str) -> xr.DataArray:
    """Median error at one number of samples over that at another."""
    if missing := lacking(result):
        return not_applicable(missing)
    median = result.error.sel(setting=setting, drop=True).median("seed")
    return median.sel(n=places(result)[above], drop=True) / median.sel(n=places(result)[below], drop=True)


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Median error by samples, peaks marked; the eigenvalues that explain them; networks trained whole."""
    from plotly.subplots import make_subplots

    titles = ("random features: test error", "tanh features: smallest eigenvalue", "networks")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles)
    blue, gray, red, purple = "rgb(46, 124, 196)", "rgb(120, 120, 120)", "rgb(214, 104, 44)", "rgb(122, 92, 170)"
    colors = dict(zip(ACTIVATIONS, (gray, blue, purple, red), strict=True))
    for setting in result.setting.values:
        values = result.error.sel(setting=setting).transpose("seed", "n").values
        name, dash = str(setting), "dot" if "mean of" in str(setting) else "dash" if "ridge" in str(setting) else None
        line = {"color": colors.get(name, blue), "dash": dash}
        drawing.add_scatter(x=result.n, y=np.median(values, axis=0), mode="lines", name=name, line=line, row=1, col=1)
        peaks = [each for each in stats.turning_points(values, result.n, generator=0) if each.kind == "peak"]
        drawing.add_scatter(
            x=[peak.at for peak in peaks], y=[peak.value.estimate for peak in peaks], mode="markers",
            marker_color=line["color"],
            text=[f"{name}: {peak.prominence.estimate:.2g} times what lies beside it" for peak in peaks],
            hoverinfo="text", showlegend=False, row=1, col=1,
        )  # fmt: skip
    shown = [(2, "smallest_eigenvalue_whole", "whole", blue), (2, "smallest_eigenvalue_linear", "linear part", red)]
    shown += [(3, "network_error", "test error", blue), (3, "network_training_error", "training error", gray)]
    for column, name, title, color in shown:
        if name in result:
            values = result[name].median("network_seed") if "network_seed" in result[name].dims else result[name]
            drawing.add_scatter(
                x=result.n, y=values, mode="lines+markers", name=title, line={"color": color}, showlegend=True,
                row=1, col=column,
            )  # fmt: skip
    for column in (1, 2):
        for place in (int(result.d), int(result.p)):
            drawing.add_vline(x=place, line_dash="dot", line_width=1, row=1, col=column)
    drawing.update_xaxes(type="log", title_text="samples")
    drawing.update_yaxes(type="log")
    return drawing
