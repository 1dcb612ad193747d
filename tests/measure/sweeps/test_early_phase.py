import functools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.measure import early_phase, weight_motion

SPLIT = data.digits(train=400)
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
FIT = functools.partial(train.fit, optimizer=SGD, batch_size=50)


def net(**knobs):
    return models.mlp((1, 8, 8), 10, width=(24, 16), generator=0, **knobs)


def test_what_it_sees_is_what_snapshots_of_every_step_show():
    model = net()
    found = early_phase(model, SPLIT.train, FIT, steps=20, test=SPLIT.test, generator=1)
    seen = found.watched
    assert seen.step.values.tolist() == [0, 1, 2, 4, 8, 16, 20] == list(found.states)
    assert seen.layer.values.tolist() == ["linear1.weight", "linear2.weight", "logits.weight", "all"]
    order = int(torch.randint(2**62, (2,), generator=torch.Generator().manual_seed(1))[0])
    twin = net()
    every = train.fit(
        twin, SPLIT.train, steps=20, optimizer=SGD, batch_size=50, generator=order, states=train.States(1)
    )
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())
    exact = weight_motion(every.states).sel(step=seen.step)
    for name in exact:  # the path is summed in single precision: of 20 steps to 1e-6
        np.testing.assert_allclose(seen[name], exact[name], rtol=1e-5, atol=1e-7, err_msg=name)
    coarse = weight_motion(found.states)
    assert (coarse.path.isel(step=-1) < seen.path.isel(step=-1)).all()  # the snapshots alone would cut corners
    for step in (0, 20):
        twin.load_state_dict(every.states[step])
        at = seen.sel(step=step)
        assert float(at.test_accuracy) == pytest.approx(train.accuracy(twin, SPLIT.test))
        outputs = train.outputs(twin, SPLIT.train)
        assert float(at.train_loss) == pytest.approx(
            float(nn.functional.cross_entropy(outputs, SPLIT.train[1])), rel=1e-5
        )


def test_gradients_are_those_of_batches_in_training_mode_and_leave_no_trace():
    x, y = SPLIT.train
    model = net(norm="batch")
    found = early_phase(model, SPLIT.train, FIT, steps=3, batch_size=100, gradient_batches=2, generator=1)
    choice = int(torch.randint(2**62, (2,), generator=torch.Generator().manual_seed(1))[1])
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(choice)).split(100)[:2]
    for step in (0, 3):
        twin = net(norm="batch")
        twin.load_state_dict(found.states[step])
        means = []
        for chosen in rows:
            twin.zero_grad()
            nn.functional.cross_entropy(twin(x[chosen]), y[chosen]).backward()
            means.append(torch.cat([p.grad.flatten() for p in twin.parameters() if p.ndim == 2]).abs().mean().item())
        assert float(found.watched.gradient.sel(step=step, layer="all")) == pytest.approx(np.mean(means), rel=1e-4)
    plain = net(norm="batch")  # batch statistics, too, are those of a training that nobody looked at
    order = int(torch.randint(2**62, (2,), generator=torch.Generator().manual_seed(1))[0])
    train.fit(plain, SPLIT.train, steps=3, optimizer=SGD, batch_size=50, generator=order)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


def test_dropout_goes_on_as_if_nobody_had_looked():
    def trained(looked):
        torch.manual_seed(0)
        model = net(dropout=0.5)
        order = int(torch.randint(2**62, (2,), generator=torch.Generator().manual_seed(1))[0])
        if looked:
            early_phase(model, SPLIT.train, FIT, steps=4, generator=1)
        else:
            FIT(model, SPLIT.train, steps=4, generator=order)
        return model.logits.weight

    assert torch.equal(trained(True), trained(False))


def test_curvature_is_that_of_the_whole_matrix_on_the_same_batches():
    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    model = models.mlp((3,), 2, width=(20,), generator=0)
    found = early_phase(
        model, (x, y), functools.partial(FIT, batch_size=None), steps=4, batch_size=40, gradient_batches=1,
        curvature=True, generator=0,
    )  # fmt: skip
    names = [name for name, _ in model.named_parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]

    def loss(flat):
        parts = {n: part.view_as(model.get_parameter(n)) for n, part in zip(names, flat.split(sizes), strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, parts, x), y)

    flat = torch.cat([found.states[4][name].flatten() for name in names])
    largest = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1]
    # Lanczos stops at a relative error of 1e-3
    assert float(found.watched.top_eigenvalue.sel(step=4)) == pytest.approx(float(largest), rel=5e-3)


def test_signs_change_early_where_gradients_are_planted_so():
    """A network whose loss pushes for two steps and then rests has made all its flips after them."""
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.3, -0.3, 0.05, -0.05]]))
    data_ = torch.eye(4), torch.zeros(4, 1)
    push = functools.partial(
        train.fit, optimizer=functools.partial(torch.optim.SGD, lr=1.0), batch_size=None,
        schedule=lambda step: 1.0 if step < 2 else 0.0, loss_fn=lambda outputs, y: 0.2 * outputs.sum(),
    )  # fmt: skip
    seen = early_phase(model, data_, push, steps=10, loss_fn=lambda outputs, y: 0.2 * outputs.sum()).watched
    assert "train_accuracy" not in seen  # labels are no classes
    assert seen.flips_made.sel(layer="all").values.tolist() == [0, 0.5, 1, 1, 1, 1]
    np.testing.assert_allclose(seen.detour.sel(layer="all", step=[2, 10]), 1, rtol=1e-6)


def test_bad_settings_are_named():
    for settings, word in (
        ({"steps": 0}, "steps=0"),
        ({"steps": 3, "gradient_batches": 0}, "gradient_batches=0"),
        ({"steps": 3, "at": (5,)}, "0 to 5"),
        ({"steps": 3, "at": (-1,)}, "-1"),
    ):
        with pytest.raises(InputError, match=word):
            early_phase(net(), SPLIT.train, FIT, **settings)
    with pytest.raises(InputError, match="no weight"):
        early_phase(nn.PReLU(), SPLIT.train, FIT, steps=3)
