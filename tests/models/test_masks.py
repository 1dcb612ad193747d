import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from phenoscope.core.errors import InputError
from phenoscope.models.masks import Masks, prunable
from phenoscope.prune import Masks as PublicMasks
from phenoscope.record import Filters
from phenoscope.record.layers import find_layers


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def half(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Masks({name: torch.rand(w.shape, generator=rng) < 0.5 for name, w in prunable(model).items()})


def test_the_weights_to_prune_have_two_dimensions_and_belong_to_no_embedding_or_norm():
    class Everything(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(7, 8)
            self.attention = nn.MultiheadAttention(8, 2)
            self.norm = nn.LayerNorm((3, 8))
            self.rnn = nn.GRU(8, 4)
            self.head = nn.Linear(8, 8)
            self.tied = nn.Linear(8, 8)
            self.tied.weight = self.head.weight
            self.position = nn.Parameter(torch.zeros(3, 8))

    assert list(prunable(Everything())) == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
        "head.weight",
    ]
    assert PublicMasks is Masks
    with pytest.raises(InputError, match="could be pruned"):
        prunable(nn.BatchNorm1d(3))


def test_density_and_counts_are_those_of_the_ones():
    masks = Masks({"a": torch.tensor([[1.0, 0, 1]]), "b": torch.zeros(5, dtype=torch.int64)})
    assert masks.counts == {"a": 2, "b": 0}
    assert masks.density == 0.25
    assert masks.collapsed == ("b",)
    assert Masks.ones(net()).density == 1 and Masks.ones(net()).collapsed == ()


def test_apply_zeroes_what_is_not_kept_and_nothing_else():
    model, before = net(), net()
    masks = half(model)
    assert masks.apply_(model) is model
    for (name, after), old in zip(model.named_parameters(), before.parameters(), strict=True):
        expected = torch.where(masks[name], old, 0) if name in masks else old
        assert torch.equal(after, expected)


def test_apply_turns_nan_and_infinity_into_zero_too():
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, float("nan"))
    Masks({"weight": torch.tensor([[1, 0]])}).apply_(model)
    assert model.weight[0, 0].isnan() and model.weight[0, 1] == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_and_keeps_what_both_keep(a, b):
    a, b = (Masks({"w": torch.tensor(bits).reshape(2, 3)}) for bits in (a, b))
    assert torch.equal((a & b)["w"], a["w"] & b["w"])
    assert a & a == a and a & b == b & a
    assert (a & b).density <= min(a.density, b.density)


def test_and_takes_a_parameter_that_only_one_names_as_it_is():
    a, b = Masks({"v": torch.tensor([1, 0])}), Masks({"w": torch.tensor([0, 1])})
    assert a & b == Masks({"v": torch.tensor([1, 0]), "w": torch.tensor([0, 1])})
    with pytest.raises(InputError, match="shapes"):
        a & Masks({"v": torch.tensor([1])})


def test_masks_are_saved_whole_and_read_back(tmp_path):
    masks = half(net())
    masks.save(tmp_path / "masks.safetensors")
    assert Masks.load(tmp_path / "masks.safetensors") == masks
    assert [path.name for path in tmp_path.iterdir()] == ["masks.safetensors"]
    (tmp_path / "other").write_bytes(b"not this")
    with pytest.raises(InputError, match="holds no masks"):
        Masks.load(tmp_path / "other")
    with pytest.raises(InputError, match="holds no masks"):
        Masks.load(tmp_path / "missing")


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.01),
    ],
)
def test_hold_keeps_weights_gradients_and_optimizer_state_at_zero(make):
    model = net()
    optimizer = make(model.parameters())
    x, y = torch.randn(8, 2, 4, 4), torch.randint(5, (8,))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    step()  # so that the optimizer remembers something of the weights that then go
    masks = half(model)
    with masks.hold(model, optimizer):
        for _ in range(5):
            step()
            for name, (parameter, mask) in masks.within(model).items():
                held = [parameter, parameter.grad, *optimizer.state[parameter].values()]
                assert all((each[~mask] == 0).all() for each in held if each.shape == mask.shape), name
                assert parameter[mask].ne(0).all()
    step()
    assert any((parameter[~mask] != 0).any() for parameter, mask in masks.within(model).values())  # let go again


def test_holding_equals_training_the_network_that_torch_pruned():
    # torch multiplies by the mask in the forward pass; equal up to rounding: 1e-6 of weights of order 0.1
    model = net()
    masks = half(model)
    theirs = masks.to_torch(copy.deepcopy(model))
    x, y = torch.randn(8, 2, 4, 4), torch.randint(5, (8,))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with masks.hold(model, sgd):
        train(model, sgd, x, y)
    train(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9), x, y)
    for index in (0, 4):
        expected = theirs[index].weight_orig * theirs[index].weight_mask
        torch.testing.assert_close(model[index].weight, expected, rtol=0, atol=1e-6)


def train(model, optimizer, x, y):
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_masks_go_to_torchs_pruning_and_come_back():
    model = net()
    torch_prune.l1_unstructured(model[4], "weight", amount=0.3)
    masks = Masks.from_torch(model)
    assert masks.counts == {"4.weight": 56}
    fresh = net()
    pruned = masks.to_torch(fresh)
    assert torch.equal(pruned[4].weight, fresh[4].weight * masks["4.weight"])
    assert not torch_prune.is_pruned(fresh)
    assert Masks.from_torch(pruned) == masks
    with pytest.raises(InputError, match="nothing in this model"):
        Masks.from_torch(net())


def test_filters_become_masks_of_their_weights():
    model = net()
    masks = Masks.from_filters(model, Filters({"0": [1, 3], "4": []}))
    assert masks.counts == {"0.weight": 2 * 18, "4.weight": 80}
    assert not masks["0.weight"][[1, 3]].any() and masks["0.weight"][[0, 2]].all()
    with pytest.raises(InputError, match="has 4 filters"):
        Masks.from_filters(model, {"0": [4]})
    for name in ("9", "1"):  # there is none, and a norm
        with pytest.raises(InputError, match="no layer"):
            Masks.from_filters(model, {name: [0]})


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_of_a_transposed_convolution_agree_with_the_record(groups):
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=groups))
    layers = {found.layer.name: found.layer for found in find_layers(model)[0]}
    plain = Masks.from_filters(model, {"0": [0, 4]})
    assert plain == Masks.from_filters(model, Filters({"0": [0, 4]}, layers))
    with torch.no_grad():
        model[0].bias.zero_()
        out = plain.apply_(model)(torch.randn(1, 4, 5, 5)).abs().sum((0, 2, 3))
    assert (out == 0).nonzero().flatten().tolist() == [0, 4]


def test_a_compiled_network_has_the_names_of_its_own():
    model = net()
    compiled = torch.compile(model, backend="eager")
    assert list(prunable(compiled)) == list(prunable(model)) == ["0.weight", "4.weight"]
    half(model).apply_(compiled)
    assert (model[4].weight == 0).any()


def test_bad_masks_are_named():
    with pytest.raises(InputError, match=r"'w' has other values"):
        Masks({"w": torch.tensor([0.5])})
    with pytest.raises(InputError, match=r"'w' has other values"):
        Masks({"w": torch.tensor([float("nan")])})
    with pytest.raises(InputError, match="must be a tensor"):
        Masks({"w": [1, 0]})
    with pytest.raises(InputError, match="no parameter 'w'"):
        Masks({"w": torch.ones(2)}).apply_(net())
    with pytest.raises(InputError, match="has shape"):
        Masks({"4.weight": torch.ones(2)}).apply_(net())
