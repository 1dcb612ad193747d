import pytest
import torch
from torch import nn
from torch.func import functional_call

from phenoscope import kernels, models
from phenoscope.core.errors import InputError


def explicit(model, x1, x2):
    """The kernel from whole Jacobians by torch's own reverse mode, one output of one example at a time."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def rows(x):
        out = model(x)
        return torch.stack([
            torch.stack([
                torch.cat([g.flatten() for g in torch.autograd.grad(o, parameters, retain_graph=True, allow_unused=True,
                                                                    materialize_grads=True)])
                for o in one
            ])
            for one in out
        ])  # fmt: skip

    return torch.einsum("iap,jbp->ijab", rows(x1), rows(x2))


def dense(seed=0, outputs=3):
    return models.mlp((5,), outputs, width=(7, 6), activation="tanh", init="torch", generator=seed).double()


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    ).double().eval()  # fmt: skip


def inputs(n, *shape, seed=0):
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ["layers", "jacobian"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_the_kernel_is_the_product_of_whole_jacobians(method, chunk):
    model, a, b = dense(), inputs(5, 5), inputs(3, 5, seed=1)
    # float64 rounding
    for x2, expected in ((b, explicit(model, a, b)), (None, explicit(model, a, a))):
        full = kernels.empirical_ntk(model, a, x2, method=method, chunk=chunk)
        torch.testing.assert_close(full, expected, rtol=1e-11, atol=1e-12)
        trace = kernels.empirical_ntk(model, a, x2, outputs="trace", method=method, chunk=chunk)
        torch.testing.assert_close(trace, expected.diagonal(dim1=2, dim2=3).mean(-1), rtol=1e-11, atol=1e-12)
        one = kernels.empirical_ntk(model, a, x2, outputs=1, method=method, chunk=chunk)
        torch.testing.assert_close(one, expected[..., 1, 1], rtol=1e-11, atol=1e-12)


def test_layers_and_jacobians_agree_in_the_ntk_parametrization():
    init = lambda net, *, generator: models.init_gaussian(net, sigma_w2=2.25, sigma_b2=0.01, generator=generator)  # noqa: E731
    model = models.mlp((5,), 2, width=(9, 8), parametrization="ntk", init=init, generator=0).double()
    x = inputs(4, 5)
    layers, jacobian = (kernels.empirical_ntk(model, x, method=m) for m in ("layers", "jacobian"))
    torch.testing.assert_close(layers, jacobian, rtol=1e-11, atol=1e-12)


def test_convolutions_and_norms_go_by_layers_too():
    model, x = convolutional(), inputs(3, 1, 6, 6)
    for method in ("auto", "layers", "jacobian", "products"):
        found = kernels.empirical_ntk(model, x, method=method)
        torch.testing.assert_close(found, explicit(model, x, x), rtol=1e-10, atol=1e-12)  # the same sums in float64


def test_a_network_without_a_layer_that_has_a_rule_says_so():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(5, 2, dtype=torch.float64))

        def forward(self, x):
            return torch.tanh(x @ self.w)

    x = inputs(3, 5)
    torch.testing.assert_close(kernels.empirical_ntk(Bare(), x), explicit(Bare(), x, x), rtol=1e-10, atol=1e-12)
    with pytest.raises(InputError, match="no layer of it has a rule"):
        kernels.empirical_ntk(Bare(), x, method="layers")


def test_a_linear_model_has_the_gram_matrix_of_its_inputs_for_every_output():
    x = inputs(4, 6)
    model = nn.Linear(6, 3, bias=False).double()
    expected = (x @ x.T)[:, :, None, None] * torch.eye(3, dtype=torch.float64)
    for method in ("layers", "jacobian"):
        torch.testing.assert_close(
            kernels.empirical_ntk(model, x, method=method), expected, rtol=1e-14, atol=1e-14
        )  # the same sums, but for their order


def test_the_kernel_is_symmetric_and_positive():
    x = inputs(12, 5)
    matrix = kernels.empirical_ntk(dense(outputs=2), x).permute(0, 2, 1, 3).reshape(24, 24)
    assert torch.allclose(matrix, matrix.T, rtol=1e-12)
    values = torch.linalg.eigvalsh(matrix)
    assert values[0] > -1e-5 * values[-1]


def test_frozen_parameters_do_not_count():
    model, x = dense(), inputs(4, 5)
    model.linear1.weight.requires_grad_(False)
    model.linear2.bias.requires_grad_(False)
    for method in ("layers", "jacobian"):
        found = kernels.empirical_ntk(model, x, method=method)
        torch.testing.assert_close(found, explicit(model, x, x), rtol=1e-11, atol=1e-12)


def test_activations_in_place_and_shared_layers_give_the_right_kernel():
    torch.manual_seed(0)
    in_place = nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)).double()
    plain = nn.Sequential(in_place[0], nn.ReLU(), in_place[2])
    x = inputs(4, 5)
    torch.testing.assert_close(kernels.empirical_ntk(in_place, x), explicit(plain, x, x), rtol=1e-11, atol=1e-12)
    layer = nn.Linear(5, 5).double()
    twice = nn.Sequential(layer, nn.Tanh(), layer)
    torch.testing.assert_close(kernels.empirical_ntk(twice, x), explicit(twice, x, x), rtol=1e-11, atol=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the older of torch's two spectral norms
def test_layers_that_are_more_than_linear_take_the_jacobian():
    torch.manual_seed(0)
    old, new = nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm
    old, new = (nn.Sequential(n(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 2)).double().eval() for n in (old, new))
    hooked = dense()
    hooked.linear1.register_forward_hook(lambda _, __, out: 2 * out)
    x = inputs(4, 5)
    for model in (old, new, hooked):
        torch.testing.assert_close(kernels.empirical_ntk(model, x), explicit(model, x, x), rtol=1e-10, atol=1e-12)


def test_inputs_are_taken_to_the_models_dtype():
    model, x = dense(), inputs(3, 5).float()
    assert torch.equal(kernels.empirical_ntk(model, x), kernels.empirical_ntk(model, x.double()))


def test_the_diagonal_does_not_depend_on_the_width_in_the_ntk_parametrization():
    x = inputs(3, 5)

    def diagonal(width, parametrization):
        def one(seed):
            net = models.mlp((5,), 1, width=(width, width), parametrization=parametrization, generator=seed).double()
            return kernels.empirical_ntk(net, x, outputs=0).diagonal().mean()

        return float(torch.stack([one(seed) for seed in range(6)]).mean())

    # six draws of width 64 are off by some ten percent; the standard parametrization grows with the width
    assert diagonal(512, "ntk") == pytest.approx(diagonal(64, "ntk"), rel=0.25)
    assert diagonal(512, "standard") > 4 * diagonal(64, "standard")


def test_the_model_is_left_as_it_was_found():
    model, x = dense().train(), inputs(3, 5)
    model.linear1.weight.grad = torch.ones_like(model.linear1.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for method in ("layers", "jacobian"):
        kernels.empirical_ntk(model, x, method=method)
    assert model.training and (model.linear1.weight.grad == 1).all() and model.linear2.weight.grad is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_networks_without_a_kernel_are_refused():
    x = inputs(3, 5)
    batch = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    with pytest.raises(InputError, match=r"call model\.eval"):
        kernels.empirical_ntk(batch, x)
    assert kernels.empirical_ntk(batch.eval(), x).shape == (3, 3, 1, 1)
    with pytest.raises(InputError, match="random in training"):
        kernels.empirical_ntk(nn.Sequential(nn.Linear(5, 4), nn.Dropout(), nn.Linear(4, 1)).double(), x)
    with pytest.raises(InputError, match="from 0 to 2"):
        kernels.empirical_ntk(dense(), x, outputs=3)
    with pytest.raises(InputError, match="at least one example"):
        kernels.empirical_ntk(dense(), x[:0])
    with pytest.raises(InputError, match="no trainable parameters"):
        kernels.empirical_ntk(dense().requires_grad_(False), x)


def test_the_feature_kernel_is_the_gram_matrix_of_the_last_hidden_layer():
    model, a, b = dense(), inputs(4, 5), inputs(2, 5, seed=1)
    h = [model[:-1](x) for x in (a, b)]
    torch.testing.assert_close(kernels.empirical_nngp(model, a, b), h[0] @ h[1].T / 6, rtol=1e-14, atol=0)
    first = model.act1(model.linear1(a))
    torch.testing.assert_close(kernels.empirical_nngp(model, a, layer="act1"), first @ first.T / 7, rtol=1e-14, atol=0)
    torch.testing.assert_close(
        kernels.empirical_nngp(model, a, layer=model.act1), first @ first.T / 7, rtol=1e-14, atol=0
    )
    with pytest.raises(InputError, match="no layer 'nothing'"):
        kernels.empirical_nngp(model, a, layer="nothing")


def test_the_drift_is_the_change_between_two_states():
    model, x = dense(), inputs(4, 5)
    other = dense(seed=1)
    states = {0: model.state_dict(), 7: other.state_dict()}
    own = {name: value.clone() for name, value in model.state_dict().items()}
    found = kernels.ntk_drift(model, states, x)
    a, b = (kernels.empirical_ntk(net, x) for net in (model, other))
    assert found.step.values.tolist() == [0, 7] and float(found.drift[0]) == 0
    assert float(found.drift[1]) == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-12)
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="not of this network"):
        kernels.ntk_drift(model, {0: {"w": torch.zeros(1)}}, x)


def test_the_kernel_predicts_the_first_step_of_descent():
    """A small step along the negative gradient of sum f changes f by -lr Theta 1."""
    model, x = dense(outputs=1), inputs(4, 5)
    kernel = kernels.empirical_ntk(model, x, outputs=0)
    gradient = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    lr = 1e-6
    moved = {name: p - lr * g for (name, p), g in zip(model.named_parameters(), gradient, strict=True)}
    change = (functional_call(model, moved, (x,)) - model(x)).flatten()
    torch.testing.assert_close(change, -lr * kernel.sum(1), rtol=1e-4, atol=0)  # second order in lr
