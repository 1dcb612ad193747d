"""NTK eigenvalues accurately predict generalization (Simon, Dickens, Karkada and DeWeese, 2021; TMLR 2023).

Every prediction comes from the eigenvalues of a kernel and the target's coefficients; nothing is fitted.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import xarray as xr
from torch import Tensor

from ... import data, kernels, models, stats, train
from ...lab import Study, not_applicable
from ..benches import wide_nets as bench

if TYPE_CHECKING:
    import plotly.graph_objects

SIGMA_W2, SIGMA_B2 = 2.0, 0.1
limit = functools.partial(kernels.mlp_kernels, act="relu", sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)
mlp = functools.partial(
    models.mlp, depth=2, activation="relu", parametrization="ntk",
    init=functools.partial(models.init_gaussian, sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2),
)  # fmt: skip
DEGREES = (1, 2, 3)
BITS, HARMFUL = 8, 64  # of the cube; samples where the parity of all bits is asked for
MOMENTUM = 0.9  # reaches the minimum of plain descent in a tenth of the steps

study = Study(
    "eigenlearning",
    smoke=dict(pool=300, ns=(30,), resamplings=3, cube_ns=(32,), draws=3, net_ns=()),
    gpu=dict(width=2000, net_seeds=20, steps=2000, resamplings=100, draws=200),
)


@study.experiment
def experiment(
    lab,
    *,
    model=mlp,
    dataset=data.digits,
    pool: int = 1797,
    ns: tuple[int, ...] = (10, 30, 100, 300),
    ridges: tuple[float, ...] = (0.0, 0.1),
    resamplings: int = 20,
    cube_ns: tuple[int, ...] = (16, 32, 64, 128, 192),
    draws: int = 30,
    net_ns: tuple[int, ...] = (32, 64, 128),
    width: int = 512,
    net_seeds: int = 5,
    steps: int = 200,
) -> xr.Dataset:
    """Predicts errors and learnabilities of kernel regression and of networks, and measures them.

    Args:
        model: factory of the networks that learn parities of eight bits; it takes `width`. Two hidden ReLU layers in
            the NTK parametrization unless given.
        dataset: factory of the data on which kernel regression is measured; the kernel is that of three hidden layers.
        pool: how many examples stand for the law of the data, at most.
        ns: numbers of samples drawn from them.
        ridges: added to the diagonal of the samples' kernel matrix.
        resamplings: draws of each number of samples.
        cube_ns: numbers of the 256 patterns of eight bits on which kernel regression learns parities.
        draws: how often they are drawn.
        net_ns: the same for networks; none if empty.
        width: hidden units of a layer.
        net_seeds: networks for each parity and number of patterns, with patterns of their own.
        steps: updates, full-batch with momentum, at the rate 1 / largest eigenvalue; 200 leave less than a hundredth of
            any component.
    """
    closed = mlp is model
    nets = [
        dict(model=model, closed=closed, n=n, degree=degree, width=width, seeds=net_seeds, steps=steps)
        for n in sorted(net_ns)[::-1] for degree in DEGREES
    ]  # fmt: skip
    trained = lab.map(networks, nets)
    pools = [
        dict(dataset=dataset, target=target, pool=pool, ns=ns, ridges=ridges, repeats=resamplings)
        for target in ("classes", "even or odd")
    ]
    curves = lab.map(on_data, pools)
    (cube,) = lab.map(on_cube, [dict(model=model, closed=closed, ns=cube_ns, repeats=draws)])
    parts = [xr.concat(curves, "target"), cube]
    if trained:
        found = {(cell["n"], cell["degree"]): one for cell, one in zip(nets, trained, strict=True)}
        rows = [xr.concat([found[n, degree] for degree in DEGREES], "degree") for n in sorted(net_ns)]
        parts.append(xr.concat(rows, "net_n"))
    return xr.merge(parts)


def on_data(lab, *, dataset, target, pool, ns, ridges, repeats) -> xr.Dataset:
    """Predicted and measured error of kernel regression on one target of the data."""
    split = data.load(dataset, generator=lab.seed("split"))
    x, y = (torch.cat(both)[:pool].to(lab.device) for both in zip(split.train, split.test, strict=True))
    x = x.flatten(1).double()
    x = x * x.shape[1] ** 0.5 / x.norm(dim=1, keepdim=True)
    f = y if target == "classes" else (1.0 - 2 * (y % 2)).double()
    found = kernels.predict_generalization(
        functools.partial(limit, depth=3), x, f, ns, ridges=ridges, repeats=repeats,
        generator=lab.seed("samples", target),
    )  # fmt: skip
    return found[["test_mse", "measured_mse", "eigenvalue", "energy"]].assign_coords(target=target)


def on_cube(lab, *, model, closed, ns, repeats) -> xr.Dataset:
    """What kernel regression learns of parities of eight bits; that of all of them; and the sum over all modes."""
    x = data.hypercube(bits=BITS).inputs.double().to(lab.device)
    kernel = cube_kernel(lab, model, closed, x)
    rows = []
    for degree in DEGREES:
        found = kernels.predict_generalization(
            kernel, None, parity(x, degree), ns, repeats=repeats, generator=lab.seed("patterns", degree)
        )
        rows.append(found[["target_learnability", "measured_learnability"]].isel(ridge=0, drop=True))
    learned = xr.concat(rows, "degree").rename(n="cube_n", repeat="draw").assign_coords(degree=list(DEGREES))
    whole = kernels.predict_generalization(
        kernel, None, parity(x, BITS), [HARMFUL], repeats=repeats, generator=lab.seed("patterns", BITS)
    )
    learned["harmful_mse"] = ("draw", whole.measured_mse.values[0, 0])
    learned["harmful_predicted"] = whole.test_mse.item()
    squares = torch.cdist(x, x) ** 2
    others = {"tangent": kernel, "Gaussian": torch.exp(-squares / BITS), "cubic": (1 + x @ x.T / BITS) ** 3}
    totals = [total_learned(each, 32, lab.seed("sum", name)) for name, each in others.items()]
    learned["learned_modes"] = ("kernel", totals)
    return learned.assign_coords(kernel=list(others))


def networks(lab, *, model, closed, n, degree, width, seeds, steps) -> xr.Dataset:
    """The share of a parity that trained networks learn, and what their kernel's limit predicts."""
    x = data.hypercube(bits=BITS).inputs.to(lab.device)
    f = parity(x, degree)[:, None]
    starts, pairs, before = [], [], []
    for seed in range(seeds):
        network = bench.network(lab, model, (x, f), width=width, seed=seed)
        start = train.outputs(network, x)
        draw = torch.Generator().manual_seed(lab.seed("rows", n, seed))
        rows = torch.randperm(len(x), generator=draw)[:n].to(x.device)
        starts.append(network)
        before.append(start)
        pairs.append((x[rows], (f + start)[rows]))  # so that what is added to the start's outputs is the target
    rates = [bench.critical_rate(network, pair[0]) / 2 for network, pair in zip(starts, pairs, strict=True)]
    trained = train.fleet(
        starts, pairs, steps=steps, optimizer=functools.partial(torch.optim.SGD, momentum=MOMENTUM), lr=rates,
        loss_fn=bench.half_squares, batch_size=None, generator=lab.seed("order"),
    )  # fmt: skip
    learned = trained.outputs(x) - torch.stack(before)
    system = kernels.eigensystem(cube_kernel(lab, model, closed, x.double()), f.double())
    found = kernels.eigenlearning(system.values, system.coefficients, n)
    energy = system.coefficients.square().sum(1).cpu()
    loss = trained.history.loss.values
    return xr.Dataset(
        {
            "net_learnability": ("net_seed", ((learned * f).sum((1, 2)) / f.square().sum()).double().cpu().numpy()),
            "net_predicted": float((found.learnabilities * energy).sum() / energy.sum()),
            "net_loss_left": ("net_seed", loss[-1] / loss[0]),
        },
        {"net_seed": range(seeds), "degree": degree, "net_n": n},
    )


def cube_kernel(lab, model, closed, x: Tensor) -> Tensor:
    """The limit's tangent kernel on patterns: a closed form, or what its layers say of a network of the user's."""
    if closed:
        return limit(x, depth=2).ntk
    network = bench.network(lab, model, (x, x[:, :1]), width=16, seed=0)
    return kernels.infinite(network)(x).ntk


def parity(x: Tensor, degree: int) -> Tensor:
    """The product of the first bits: of mean square 1, an eigenfunction of every kernel of inner products."""
    return x[:, :degree].prod(1)


def total_learned(kernel: Tensor, n: int, seed: int) -> float:
    """The sum over all eigenfunctions of the share that regression on one draw of samples learns."""
    functions = kernels.eigensystem(kernel, kernel[:, 0]).functions
    rows = torch.randperm(len(kernel), generator=torch.Generator().manual_seed(seed))[:n].to(kernel.device)
    guess = kernels.kernel_regression(kernel[rows][:, rows], functions[rows], kernel[:, rows], ridge=0.0).prediction
    return float((guess * functions).mean(0).sum())


@study.claim("predicts-digits-mse")
def error_on_data(result: xr.Dataset) -> xr.DataArray:
    wanted, ridges = [30, 100, 300], [0.0, 0.1]
    if not (set(wanted) <= set(result.n.values) and set(ridges) <= set(result.ridge.values)):
        return not_applicable("30, 100 and 300 samples with ridge 0 and 0.1 were not run")
    found = result[["test_mse", "measured_mse"]].sel(n=wanted, ridge=ridges)
    return abs(found.test_mse / found.measured_mse.mean("repeat") - 1).max()


@study.claim("predicts-modes")
def modes(result: xr.Dataset) -> xr.DataArray:
    if result.sizes["cube_n"] < 2:
        return not_applicable("one number of samples was run")
    return abs(result.target_learnability - result.measured_learnability.mean("draw")).max()


@study.claim("nets-follow-theory-rank")
def network_ranks(result: xr.Dataset) -> xr.DataArray:
    if (found := by_network(result)) is None:
        return not_applicable("networks of 32, 64 and 128 samples were not trained")
    return xr.DataArray(stats.spearman(*(part.values.ravel() for part in found)))


@study.claim("nets-follow-theory-deviation")
def network_deviation(result: xr.Dataset) -> xr.DataArray:
    if (found := by_network(result)) is None:
        return not_applicable("networks of 32, 64 and 128 samples were not trained")
    return abs(found[0] - found[1]).mean()


def by_network(result: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray] | None:
    """Predicted and measured learnability by degree and number of samples, if the networks of the claims are there."""
    if "net_n" not in result.dims or not {32, 64, 128} <= set(result.net_n.values):
        return None
    found = result.sel(net_n=[32, 64, 128])
    return xr.broadcast(found.net_predicted, found.net_learnability.mean("net_seed"))


@study.claim("high-degree-harmful")
def harm(result: xr.Dataset) -> xr.DataArray:
    return result.harmful_mse  # the error of zero is 1


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """Errors on the data, and learnabilities of parities: lines predicted, marks measured."""
    from plotly.subplots import make_subplots

    drawing = make_subplots(1, 2, subplot_titles=("kernel regression: error", "parities: share that is learned"))
    colors = ("rgb(46, 124, 196)", "rgb(214, 104, 44)", "rgb(122, 92, 170)", "rgb(46, 150, 88)")
    for place, target in enumerate(result.target.values):
        rows = result.sel(target=target, ridge=result.ridge.values[0])
        common = {"legendgroup": str(target), "row": 1, "col": 1, "x": result.n.values}
        drawing.add_scatter(
            y=rows.test_mse.values, mode="lines", line={"color": colors[place]}, name=f"{target}, predicted", **common
        )
        drawing.add_scatter(
            y=rows.measured_mse.mean("repeat").values, mode="markers", marker={"color": colors[place], "size": 8},
            error_y={"type": "data", "array": rows.measured_mse.std("repeat").values, "thickness": 1},
            name=f"{target}, measured", **common,
        )  # fmt: skip
    for place, degree in enumerate(result.degree.values):
        rows = result.sel(degree=degree)
        name, color = f"parity of {degree}", colors[place]
        common = {"legendgroup": name, "row": 1, "col": 2}
        drawing.add_scatter(
            x=result.cube_n.values, y=rows.target_learnability.values, mode="lines", line={"color": color},
            name=f"{name}, predicted", **common,
        )  # fmt: skip
        drawing.add_scatter(
            x=result.cube_n.values, y=rows.measured_learnability.mean("draw").values, mode="markers",
            marker={"color": color, "size": 7}, name=f"{name}, kernel", **common,
        )  # fmt: skip
        if "net_n" in result.dims:
            drawing.add_scatter(
                x=result.net_n.values, y=rows.net_learnability.mean("net_seed").values, mode="markers",
                marker={"color": color, "size": 9, "symbol": "diamond-open"}, name=f"{name}, networks", **common,
            )  # fmt: skip
    drawing.update_xaxes(type="log", title_text="samples")
    drawing.update_yaxes(type="log", row=1, col=1)
    return drawing
