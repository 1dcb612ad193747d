"""Linear mode connectivity: when data order stops to matter (Frankle, Dziugaite, Roy, Carbin, ICML 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import xarray as xr
from torch import nn

from ... import data, landscape, models, prune, train
from ...lab import Study, not_applicable
from ...stats import spearman
from ..benches import tickets as bench
from ..benches.pruned_photos import on_moved_images, standardized

if TYPE_CHECKING:
    import plotly.graph_objects

STABLE = 0.02  # of error, as in the paper
PARTS = (("train", "solid"), ("test", "dot"))
KINDS = ("magnitude", "random")
COLORS = ("rgb(46, 124, 196)", "rgb(120, 120, 120)", "rgb(214, 104, 44)", "rgb(122, 92, 170)")
PHOTO_SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)
RESNET20 = functools.partial(models.resnet, depth=20)

mnist1d = functools.partial(data.mnist1d, train=4000, test=1000)

study = Study(
    "linear-mode-connectivity",
    smoke=dict(dataset=data.digits, ks=(0, 75), sparse_ks=(0,), steps=150, seeds=2, points=5),
    gpu=dict(seeds=20),
)


@study.experiment
def experiment(
    lab,
    *,
    model=bench.mlp,
    dataset=mnist1d,
    ks: tuple[int, ...] = (0, 15, 75, 300, 750),
    sparse_ks: tuple[int, ...] = (0, 150),
    density: float = 0.1,
    steps: int = 1500,
    points: int = 30,
    seeds: int = 5,
    photos: str = "",
    photo_ks: tuple[int, ...] = (0, 125, 250, 500, 1000, 2000, 4000, 8000),
    photo_steps: int = 63000,
    photo_seeds: int = 3,
) -> xr.Dataset:
    """Splits trainings into two copies with other data orders, whole and sparse, and measures the barrier in between.

    Args:
        model: the network's factory.
        dataset: factory of the data.
        ks: steps at which copies part.
        sparse_ks: steps to which sparse subnetworks are rewound, where their copies part.
        density: share of the weights in a sparse subnetwork.
        steps: updates of each training, of 64 examples.
        points: on the line between two copies.
        seeds: repetitions, each with data, a network and orders of its own.
        photos: folder where torchvision keeps CIFAR-10; empty leaves the residual network out.
        photo_ks: steps at which copies of the residual network part.
        photo_steps: updates of its training, of 128 images.
        photo_seeds: repetitions with it.
    """
    common = dict(model=model, dataset=dataset, ks=ks, sparse_ks=sparse_ks, density=density, steps=steps, points=points)
    found = lab.map(one_seed, [dict(seed=seed, **common) for seed in range(seeds)])
    result = xr.concat(found, "seed").assign_coords(seed=range(seeds), steps=steps)
    if not photos:
        return result
    cells = [
        dict(folder=photos, ks=photo_ks, steps=photo_steps, points=points, seed=seed) for seed in range(photo_seeds)
    ]
    deep = xr.concat(lab.map(one_residual_network, cells), "photo_seed").rename(k="photo_k")
    return result.assign({f"photo_{name}": deep[name] for name in ("error", "error_barrier", "distance")})


def one_seed(lab, *, model, dataset, ks, sparse_ks, density, steps, points, seed) -> xr.Dataset:
    """One trunk: its copies at every k, and those of its subnetworks: by magnitude at the end, and at random."""
    split, make_model = bench.setting(lab, model=model, dataset=dataset, seed=seed, validation=False)
    analyze = functools.partial(
        landscape.instability, make_model, split.train, test=split.test, points=points,
        generator=lab.seed("trunk and copies", seed), device=lab.device, **bench.training(steps=steps),
    )  # fmt: skip
    whole = analyze(ks=ks).squeeze("pair", drop=True)
    largest = functools.partial(prune.one_shot, density=density)
    masks = (largest, functools.partial(shuffled, largest, generator=lab.seed("mask", seed)))
    sparse = xr.concat([analyze(ks=sparse_ks, masks=each) for each in masks], "mask").squeeze("pair", drop=True)
    sparse = sparse.rename(k="sparse_k").assign_coords(mask=list(KINDS))
    return whole.merge({f"sparse_{name}": value for name, value in sparse.data_vars.items()})


def shuffled(masks_of, network: nn.Module, *, generator: int) -> prune.Masks:
    """Random masks with as many weights in every layer."""
    masks = masks_of(network)
    return prune.random_mask_control(
        prune.Ticket(masks, network.state_dict(), masks.density), generator=generator
    ).masks  # fmt: skip


def one_residual_network(lab, *, folder, ks, steps, points, seed) -> xr.Dataset:
    """ResNet-20 on CIFAR-10, as the paper trains it, with moved and mirrored images."""
    part, test, _ = standardized("CIFAR10", folder, device=lab.device)
    found = landscape.instability(
        RESNET20, part, ks=ks, test=test, steps=steps, points=points, optimizer=PHOTO_SGD, batch_size=128,
        objective=on_moved_images, schedule=train.step_decay(steps, at=(32 / 63, 48 / 63), factor=0.1),
        generator=lab.seed("residual", seed), device=lab.device,
    )  # fmt: skip
    return found.squeeze("pair", drop=True)


@study.claim("barrier-falls-with-k")
def fall_of_the_barrier(result: xr.Dataset) -> xr.DataArray:
    half = at_half(result)
    if "not_applicable" in half.attrs or 0 not in result.k:
        return not_applicable("k = 0 and k at half of the training were not both run")
    return result.error_barrier.sel(part="train", k=0, drop=True) - half


@study.claim("stable-before-the-end")
def at_half(result: xr.Dataset) -> xr.DataArray:
    """Barrier of training error between copies that part at half of the training."""
    half = int(result.steps) // 2
    if half not in result.k:
        return not_applicable(f"copies that part at half of the training, k = {half}, were not run")
    return result.error_barrier.sel(part="train", k=half, drop=True)


@study.claim("barrier-monotone-in-k")
def barrier_against_k(result: xr.Dataset) -> xr.DataArray:
    if result.sizes["k"] < 3:
        return not_applicable("a rank correlation needs at least three k")
    return spearman(result.k, result.error_barrier.sel(part="train", drop=True).mean("seed"), dim="k")


@study.claim("resnet20-early-step")
def residual_stable_step(result: xr.Dataset) -> xr.DataArray:
    barriers = residual_barriers(result)
    if "not_applicable" in barriers.attrs:
        return barriers
    stable = barriers.photo_k.where(barriers < STABLE, drop=True)
    return not_applicable("the barrier is not below 0.02 at any k that was run") if not stable.size else stable.min()


@study.claim("resnet20-early-unstable-at-start")
def residual_barrier_at_start(result: xr.Dataset) -> xr.DataArray:
    barriers = residual_barriers(result)
    if "not_applicable" not in barriers.attrs and 0 not in barriers.photo_k:
        return not_applicable("k = 0 was not run with the residual network")
    return barriers if "not_applicable" in barriers.attrs else barriers.sel(photo_k=0, drop=True)


def residual_barriers(result: xr.Dataset) -> xr.DataArray:
    """Barriers of test error of the residual network by k, mean over seeds."""
    if "photo_error_barrier" not in result:
        return not_applicable("no folder of CIFAR-10 was given: --set photos=FOLDER")
    return result.photo_error_barrier.sel(part="test", drop=True).mean("photo_seed")


@study.figure
def figure(result: xr.Dataset) -> plotly.graph_objects.Figure:
    """The barrier by split step, whole and sparse; training error on the line between two copies for every k."""
    from plotly.subplots import make_subplots

    titles = ("barrier by split step", "training error between two copies")
    drawing = make_subplots(rows=1, cols=2, subplot_titles=titles)
    lines = [(f"{part} error", result.error_barrier.sel(part=part), dash) for part, dash in PARTS]
    if "sparse_k" in result.dims:
        sparse = result.sparse_error_barrier.sel(part="train").rename(sparse_k="k")
        lines += [(f"train error, {kind} mask", sparse.sel(mask=kind), "dash") for kind in sparse["mask"].values]
    for (name, barrier, dash), color in zip(lines, COLORS, strict=False):
        spread = {"type": "data", "array": barrier.std("seed").values, "thickness": 1}
        drawing.add_scatter(
            x=barrier.k + 1, y=barrier.mean("seed"), name=name, mode="lines+markers", error_y=spread,
            line={"color": color, "dash": dash}, row=1, col=1,
        )  # fmt: skip
    drawing.add_hline(y=STABLE, line_dash="dot", line_color="gray", row=1, col=1)
    on_line = result.error.sel(part="train").mean("seed")
    for place, k in enumerate(on_line.k.values):
        strength = 1 - 0.8 * place / max(1, on_line.sizes["k"] - 1)
        drawing.add_scatter(
            x=on_line.alpha, y=on_line.sel(k=k), name=f"k = {k}", mode="lines",
            line={"color": f"rgba(46, 124, 196, {strength:.2f})"}, row=1, col=2,
        )  # fmt: skip
    ticks = {"tickvals": result.k.values + 1, "ticktext": [str(k) for k in result.k.values]}
    drawing.update_xaxes(type="log", title_text="step at which the copies part", **ticks, row=1, col=1)
    drawing.update_xaxes(title_text="from one copy to the other", row=1, col=2)
    return drawing
