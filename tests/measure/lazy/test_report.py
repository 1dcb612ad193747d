from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import kernels, measure, models
from phenoscope.core.errors import InputError

SGD = torch.optim.SGD


def half_sum(f, y):
    return 0.5 * ((f - y) ** 2).sum()


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def net(width=32, parametrization="ntk"):
    init = partial(models.init_gaussian, sigma_w2=2.25, sigma_b2=0.01)
    return models.mlp(
        (5,), 2, width=(width, width), activation="tanh", parametrization=parametrization, init=init, generator=0
    ).double()


def rate(model, x, factor=0.5):
    kernel = kernels.empirical_ntk(model, x).permute(0, 2, 1, 3).reshape(2 * len(x), -1)
    return factor * 2 / float(torch.linalg.eigvalsh(kernel)[-1])


def test_a_linear_network_never_leaves_its_linearization():
    model = nn.Linear(5, 2).double()
    found = measure.lazy_report(
        model, (draw(12, 5), draw(12, 2, seed=1)), draw(6, 5, seed=2), steps=40, optimizer=partial(SGD, lr=0.01),
        loss_fn=half_sum,
    )  # fmt: skip
    assert float(found.deviation.max()) < 1e-6 and float(found.kernel_change[-1]) == 0
    assert float(found.parameter_change[-1].min()) > 0 and float(found.loss[-1]) < float(found.loss[0])


def test_its_linear_half_is_the_closed_form():
    model, x, y, test = net(), draw(10, 5), draw(10, 2, seed=1), draw(6, 5, seed=2)
    lr = rate(model, x)
    found = measure.lazy_report(
        model, (x, y), test, steps=30, optimizer=partial(SGD, lr=lr), loss_fn=half_sum, kernel_at=[]
    )
    expected = kernels.linear_prediction(model, x, y, test, range(31), lr=lr, flow=False)
    torch.testing.assert_close(torch.as_tensor(found.linear_outputs.values), expected, rtol=1e-8, atol=1e-8)
    assert "kernel_change" not in found


def test_wider_networks_are_lazier_in_the_ntk_parametrization():
    x, y, test = draw(10, 5), draw(10, 2, seed=1), draw(6, 5, seed=2)

    def report(width):
        model = net(width)
        return measure.lazy_report(
            model, (x, y), test, steps=40, optimizer=partial(SGD, lr=rate(model, x)), loss_fn=half_sum, at=10
        )

    narrow, wide = report(16), report(512)
    assert wide.step.values.tolist() == [0, 10, 20, 30, 40]
    for name in ("deviation", "kernel_change"):
        assert float(wide[name].max()) < 0.5 * float(narrow[name].max())  # 32 times as wide: a sixth is expected
    hidden = {"parameter": "linear2.weight"}
    assert float(wide.parameter_change.sel(hidden)[-1]) < 0.5 * float(narrow.parameter_change.sel(hidden)[-1])


def test_a_rate_that_does_not_shrink_with_the_width_keeps_standard_networks_from_being_lazy():
    """The trap: in the standard parametrization one rate for all widths does not make the distance vanish."""
    x, y, test = draw(10, 5), draw(10, 2, seed=1), draw(6, 5, seed=2)

    def farthest(width):
        return float(
            measure.lazy_report(
                net(width, "standard"), (x, y), test, steps=20, optimizer=partial(SGD, lr=0.004), loss_fn=half_sum,
                kernel_at=[],
            ).deviation.max()
        )  # fmt: skip

    assert farthest(256) > 0.7 * farthest(32)


def test_any_loss_and_optimizer_will_do_and_batches_are_the_same():
    model, x = net(8), draw(20, 5)
    found = measure.lazy_report(
        model, (x, x[:, 0].gt(0).long()), x[:4], steps=6, optimizer=partial(torch.optim.Adam, lr=1e-6), batch_size=8,
        loss_fn=functional.cross_entropy, generator=0,
    )  # fmt: skip
    # hardly moved: losses on the same batches are equal to second order in the rate
    assert found.loss.values == pytest.approx(found.linear_loss.values, rel=1e-8)
    assert len(set(found.loss.values.round(6))) > 2


def test_the_model_is_left_as_it_was():
    model, x = net(8), draw(6, 5)
    before = [p.clone() for p in model.parameters()]
    measure.lazy_report(model, (x, draw(6, 2)), x, steps=2, optimizer=partial(SGD, lr=0.1), loss_fn=half_sum)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) and model.training
    with pytest.raises(InputError, match="kernel_at"):
        measure.lazy_report(model, (x, x), x, steps=2, optimizer=SGD, kernel_at=[3])
