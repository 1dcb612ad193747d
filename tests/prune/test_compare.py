import functools
import importlib

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.prune import Masks, Ticket, compare, one_shot, snip

SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
FIT = functools.partial(train.fit, steps=60, optimizer=SGD)
MLP = functools.partial(models.mlp, width=(32, 32))
SIZES = np.array([64 * 32, 32 * 32, 320])


@pytest.fixture(scope="module")
def split():
    return data.digits(train=400)


def quick(split, **changes):
    settings = dict(methods=["magnitude"], densities=(0.3,), fit=FIT, repeats=1, generator=0)
    return compare(changes.pop("make_model", MLP), split, **settings | changes)


@pytest.fixture(scope="module")
def found(split):
    names = ["random", "magnitude", "snip", "grasp", "synflow"]
    return quick(split, methods=names, densities=(0.5, 0.05), repeats=2)


def test_every_method_keeps_exactly_the_share_and_the_result_says_where(found):
    assert found.accuracy.dims == ("arm", "density", "repeat") and found.accuracy.shape == (5, 2, 2)
    for density in (0.5, 0.05):
        kept = (found.kept.sel(density=density) * SIZES).sum("layer")
        np.testing.assert_allclose(kept, round(density * SIZES.sum()), rtol=1e-9)
    assert int(found.collapsed.sum()) == 0
    assert float(found.dense_accuracy.min()) > 0.8  # 60 steps: far above the 0.1 of chance


def test_scores_by_loss_or_flow_beat_chance_at_low_density(found):
    # a planted truth that all three papers share: at 5 % they keep a trainable network where random weights fail
    low = found.accuracy.sel(density=0.05).mean("repeat")
    assert float(low.sel(arm=["snip", "grasp", "synflow"]).min()) > float(low.sel(arm="random")) + 0.05


def test_a_repetition_has_one_network_one_order_and_one_dense_reference(split):
    seen = []

    def looking(model, loss_fn, part, *, density, generator):
        seen.append([value.clone() for value in model.parameters()])
        with torch.no_grad():
            model[1].weight.zero_()  # its own copy
        return Masks.ones(model)

    again = functools.partial(looking)
    found = quick(split, methods={"one": looking, "two": again}, densities=(1.0, 0.5), repeats=2)
    for repeat in (seen[:4], seen[4:]):
        assert all(torch.equal(a, b) for other in repeat[1:] for a, b in zip(repeat[0], other, strict=True))
    assert not torch.equal(seen[0][0], seen[4][0])
    # masks that keep everything train as the dense network does, bit for bit
    assert (found.accuracy == found.dense_accuracy).all()
    assert float(found.dense_accuracy[0]) != float(found.dense_accuracy[1])


def test_the_same_seed_gives_the_same_result_whatever_else_is_compared(split, found):
    alone = quick(split, methods=["random"], densities=(0.5, 0.05), repeats=2)
    xr.testing.assert_identical(alone.sel(arm="random"), found.sel(arm="random"))


def test_a_ticket_brings_its_weights(split):
    def signs(model, loss_fn, part, *, density, generator):
        masks = one_shot(model, density=density)
        state = {name: value.sign() * 0.1 if value.ndim == 2 else value for name, value in model.state_dict().items()}
        return Ticket(masks, state, density)

    starts = []

    def keeping(model, part, *, masks, generator):
        starts.append(model[1].weight.detach().clone())

    quick(split, methods={"signs": signs}, fit=keeping)
    assert sorted(starts[1].unique().tolist()) == pytest.approx([-0.1, 0, 0.1])


def test_methods_of_ones_own_and_iterative_pruning_stand_beside_names(split):
    methods = {"mine": functools.partial(snip, scope="layer"), "imp": "imp"}
    found = quick(split, methods=methods, densities=(0.3,), examples=50)
    np.testing.assert_allclose(found.kept.sel(arm="mine").squeeze(), 0.3, atol=2e-3)
    assert float((found.kept.sel(arm="imp") * SIZES).sum()) == round(0.3 * SIZES.sum())
    assert float(found.accuracy.sel(arm="imp").squeeze()) > 0.8


@pytest.mark.parametrize(("name", "function"), [("edge-popup", "edge_popup"), ("ntt", "ntt")])
def test_methods_that_set_weights_have_names_too(split, monkeypatch, name, function):
    module = importlib.import_module("phenoscope.prune.compare")
    monkeypatch.setattr(module, function, functools.partial(getattr(module, function), steps=3, batch_size=16))
    found = quick(split, methods=[name, "magnitude"])
    np.testing.assert_allclose(found.kept.sel(arm=name).squeeze(), 0.3, atol=2e-3)  # layer by layer
    # its weights are others than those that all methods are given, also before training
    starts = found.start_accuracy.squeeze()
    assert float(starts.sel(arm=name)) != float(starts.sel(arm="magnitude"))


def test_a_method_without_signal_collapses_and_is_said_to(split):
    def first_layer_only(model, loss_fn, part, *, density, generator):
        masks = Masks.ones(model)
        return Masks({name: mask * (number == 0) for number, (name, mask) in enumerate(masks.items())})

    found = quick(split, methods={"cut": first_layer_only})
    assert float(found.collapsed.squeeze()) == 2 and float(found.accuracy.squeeze()) < 0.2


def test_ctrl_c_keeps_what_is_done(split):
    progress = []

    def stop(done, total):
        progress.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="after 4 of 6"):
        found = quick(split, methods=["random", "magnitude"], repeats=2, progress=stop)
    assert progress == [(1, 6), (2, 6), (3, 6), (4, 6)]
    assert found.accuracy.notnull().squeeze("density").values.tolist() == [[True, False], [True, False]]
    assert found.dense_accuracy.notnull().all() and found.collapsed.isnull().sum() == 2
    with pytest.raises(KeyboardInterrupt):
        quick(split, progress=lambda done, total: (_ for _ in ()).throw(KeyboardInterrupt))


def test_a_loader_is_taken_with_a_way_to_evaluate(split):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*split.train), batch_size=50)
    evaluate = functools.partial(train.accuracy, data=split.test)
    make = lambda: models.mlp((1, 8, 8), 10, width=16)  # noqa: E731
    found = quick(loader, make_model=make, methods=["snip", "synflow"], evaluate=evaluate, examples=70)
    assert float(found.accuracy.min()) > 0.3
    pair = quick(split.train, methods=["random"], evaluate=evaluate)  # shape and classes are read off
    assert pair.accuracy.notnull().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(densities=()), "at least one density"),
        (dict(densities=(0.5, 0.5)), "different shares"),
        (dict(densities=(0.0,)), "above 0"),
        (dict(repeats=0), "one repetition"),
        (dict(methods=[]), "at least one method"),
        (dict(methods=["best"]), "one of random, magnitude"),
        (dict(methods=["snip", snip]), "two methods are called 'snip'"),
        (dict(methods={"x": lambda *a, **k: 3}), "x gave a int"),
        (dict(examples=0), "examples"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(split, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        quick(split, **changes)
    assert "\n" not in str(caught.value)


def test_an_error_of_a_method_says_whose_it_is(split):
    def picky(model, loss_fn, part, *, density, generator):
        raise InputError("too few weights")

    with pytest.raises(InputError, match=r"picky at density 0\.3: too few weights"):
        quick(split, methods=[picky])
    with pytest.raises(InputError, match="give a Split, or evaluate="):
        quick(split.train)


def test_a_fit_that_ignores_its_masks_is_found_out(split):
    def careless(model, part, *, masks, generator):
        nn.init.ones_(model[1].weight)

    with pytest.raises(InputError, match=r"linear1\.weight.*must keep to masks="):
        quick(split, fit=careless)
