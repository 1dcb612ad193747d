"""Every network can be stacked and mapped over: `torch.func.vmap` of `functional_call`."""

from functools import partial

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from phenoscope import models

NETWORKS = {
    "mlp": (partial(models.mlp, width=(8,), norm="batch", dropout=0.2), (1, 8, 8)),
    "ntk": (partial(models.mlp, width=(8,), parametrization="ntk"), (1, 8, 8)),
    "deep_linear": (models.deep_linear, (5,)),
    "cnn": (partial(models.cnn, width=(3, 4), norm="layer"), (1, 8, 8)),
    "cnn1d": (partial(models.cnn1d, width=(3, 4)), (1, 20)),
    "gapnet": (partial(models.gapnet, width=(3, 4, 5)), (3, 16, 16)),
    "vgg": (partial(models.vgg, width=0.0625, depth=11, norm="batch", blocks=3), (3, 16, 16)),
    "resnet": (partial(models.resnet, width=0.0625, depth=18), (3, 8, 8)),
    "vit": (partial(models.vit, width=8, heads=2, depth=1), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_members_compute_together_what_they_compute_alone(name):
    make, shape = NETWORKS[name]
    members = [make(shape, 3, generator=seed).double().eval() for seed in range(3)]
    tensors, buffers = stack_module_state(members)
    x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def outputs(tensors, buffers):
        return functional_call(members[0], {**tensors, **buffers}, (x,))

    together = vmap(outputs, randomness="different")(tensors, buffers)
    alone = torch.stack([member(x) for member in members])
    torch.testing.assert_close(together, alone)  # the same sums in float64

    def loss(tensors, buffers):
        return outputs(tensors, buffers).square().mean()

    slopes = vmap(grad(loss), randomness="different")(tensors, buffers)
    members[1](x).square().mean().backward()
    for parameter_name, parameter in members[1].named_parameters():
        torch.testing.assert_close(slopes[parameter_name][1], parameter.grad)


@pytest.mark.parametrize("name", ["mlp", "gapnet", "vgg", "resnet"])
def test_batch_statistics_move_in_training(name):
    make, shape = NETWORKS[name]
    members = [make(shape, 3, generator=seed).train() for seed in range(2)]
    tensors, buffers = stack_module_state(members)
    before = {key: value.clone() for key, value in buffers.items()}
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    call = vmap(lambda t, b: functional_call(members[0], {**t, **b}, (x,)), randomness="different")
    assert call(tensors, buffers).isfinite().all()
    moved = [key for key in buffers if key.endswith("running_mean") and not torch.equal(buffers[key], before[key])]
    assert moved
