"""What can be removed from which network: couplings, groups, outputs, and the reasons for what stays."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.prune import removable, slim


class Net(nn.Module):
    """Modules by name, and a function that says how they are joined."""

    def __init__(self, join, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.join = join

    def forward(self, x):
        return self.join(self, x)


def conv(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def pooled(join):
    return lambda net, x: net.fc(join(net, x).mean((2, 3)))


def shuffled(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

# name: (network, chosen, what goes, layer -> a word of the reason for what stays)
CASES = {
    "addition": (
        lambda: Net(pooled(lambda n, x: F.relu(n.a(x) + n.b(x))), a=conv(3, 8), b=conv(3, 8), fc=nn.Linear(8, 4)),
        {"a": [0, 1, 2], "b": [1, 2, 3]},
        {"a": [1, 2], "b": [1, 2]},
        {"a": "coupled to filters of b", "b": "coupled to filters of a"},
    ),
    "depthwise": (
        lambda: Net(pooled(lambda n, x: n.b(n.a(x))), a=conv(3, 8), b=conv(8, 8, groups=8), fc=nn.Linear(8, 4)),
        {"a": [0, 1, 2], "b": [1, 2, 3]},
        {"a": [1, 2], "b": [1, 2]},
        {"a": "coupled", "b": "coupled"},
    ),
    "concatenation with addition": (
        lambda: Net(
            pooled(lambda n, x: torch.cat([n.a(x), n.b(x)], 1) + n.c(x)),
            a=conv(3, 4),
            b=conv(3, 4),
            c=conv(3, 8),
            fc=nn.Linear(8, 4),
        ),
        {"a": [0, 1], "b": [1, 2], "c": [0, 5, 7]},
        {"a": [0], "b": [1], "c": [0, 5]},
        {"a": "coupled", "b": "coupled", "c": "coupled to filters of b"},
    ),
    "halves of one layer": (
        lambda: Net(
            pooled(lambda n, x: (lambda u, v: u * v.sigmoid())(*n.a(x).chunk(2, 1))), a=conv(3, 8), fc=nn.Linear(4, 4)
        ),
        {"a": [0, 1, 4, 6]},
        {"a": [0, 4]},
        {"a": "coupled"},
    ),
    "groups": (
        lambda: Net(pooled(lambda n, x: n.b(n.a(x))), a=conv(3, 8), b=conv(8, 8, groups=2), fc=nn.Linear(8, 4)),
        {"a": [0, 1, 4, 6], "b": [2, 6]},
        {"a": [0, 4], "b": [2, 6]},
        {"a": "2 groups of b have to stay of one size"},
    ),
    "transposed groups": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.ConvTranspose2d(6, 4, 3, groups=2), nn.Conv2d(4, 2, 1)),
        {"0": [1, 4], "1": [0, 2]},
        {"0": [], "1": []},
        {"0": "2 groups", "1": "2 groups"},
    ),
    "all filters": (
        lambda: nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4), nn.Flatten(), nn.Linear(256, 2)),
        {"0": range(8), "4": [0, 1]},
        {"0": "all but the largest", "4": []},
        {"0": "at least one filter", "4": "outputs"},
    ),
    "norm over channels": (
        lambda: nn.Sequential(
            conv(3, 8), nn.GroupNorm(4, 8), conv(8, 4), nn.InstanceNorm2d(4, affine=True), conv(4, 2)
        ),
        {"0": [0, 1], "2": [0]},
        {"0": [], "2": [0]},
        {"0": "normalizes them together"},
    ),
    "shuffled channels": (
        lambda: Net(pooled(lambda n, x: n.b(shuffled(n.a(x)))), a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 4)),
        {"a": [0, 1], "b": [2]},
        {"a": [], "b": [2]},
        {"a": "computes something else"},
    ),
    "softmax over channels": (
        lambda: Net(pooled(lambda n, x: n.a(x).softmax(1)), a=conv(3, 8), fc=nn.Linear(8, 4)),
        {"a": [0, 1]},
        {"a": []},
        {"a": "computes something else"},
    ),
    "a size written into the code": (
        lambda: Net(lambda n, x: n.fc(n.b(n.a(x)).view(-1, 512)), a=conv(3, 6), b=conv(6, 8), fc=nn.Linear(512, 4)),
        {"a": [0], "b": [0, 1]},
        {"a": [0], "b": []},
        {"b": "does not run"},
    ),
    "a shortcut from the input": (
        lambda: Net(pooled(lambda n, x: x + n.b(n.a(x))), a=conv(3, 6), b=conv(6, 3), fc=nn.Linear(3, 4)),
        {"a": [0], "b": [0, 1]},
        {"a": [0], "b": []},
        {"b": "does not run"},
    ),
    "a module used twice": (
        lambda: Net(pooled(lambda n, x: n.b(n.b(n.a(x)))), a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 4)),
        {"a": [0], "b": [0]},
        {"a": [], "b": []},
        {"a": "b is used more than once", "b": "b is used more than once"},
    ),
    "a computed weight": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv(3, 8)), nn.ReLU(), conv(8, 4), conv(4, 2)),
        {"0": [0], "2": [1]},
        {"0": [], "2": [1]},
        {"0": "parametrization"},
    ),
    "a free parameter": (
        lambda: Net(
            pooled(lambda n, x: n.a(x) * n.scale),
            a=conv(3, 8),
            scale=nn.Parameter(torch.rand(8, 1, 1)),
            fc=nn.Linear(8, 4),
        ),
        {"a": [0, 5]},
        {"a": [0, 5]},
        {},
    ),
    "an unused layer": (
        lambda: Net(pooled(lambda n, x: n.a(x)), a=conv(3, 8), b=conv(3, 8), fc=nn.Linear(8, 4)),
        {"a": [0, 1], "b": [0]},
        {"a": [0, 1], "b": []},
        {"b": "does not show it"},
    ),
    "features among the outputs": (
        lambda: Net(lambda n, x: {"features": n.b(n.a(x)).relu()}, a=conv(3, 8), b=conv(8, 8)),
        {"a": [0, 1], "b": [1]},
        {"a": [0, 1], "b": []},
        {"b": "outputs"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_goes_and_why_the_rest_stays(case):
    make, chosen, goes, reasons = CASES[case]
    torch.manual_seed(0)
    model = make()
    found = removable(model, chosen, IMAGES)
    if goes.get("0") == "all but the largest":
        largest = int(model[0].weight.abs().sum((1, 2, 3)).argmax())
        goes = goes | {"0": [i for i in range(8) if i != largest]}
    assert {name: indices.tolist() for name, indices in found.filters.items()} == goes
    assert found.kept.keys() == reasons.keys()
    for name, word in reasons.items():
        indices, reason = found.kept[name]
        assert word in reason
        assert sorted([*indices, *goes[name]]) == sorted(chosen[name])
    slim(model, chosen, IMAGES)  # and cutting it runs


def test_attention_and_embeddings_are_kept_and_the_units_between_are_not():
    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 8)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, tokens):
            return self.head(self.block(self.embed(tokens)))

    chosen = {"embed": [1], "block.self_attn.q": [0], "block.linear1": [3, 5], "block.linear2": [0]}
    found = removable(Transformer(), chosen, torch.arange(10).view(2, 5))
    assert found.filters["block.linear1"].tolist() == [3, 5]
    assert found.kept.keys() == {"embed", "block.self_attn.q", "block.linear2"}


def test_where_all_coupled_filters_are_chosen_the_largest_over_both_layers_stays():
    model = Net(pooled(lambda n, x: n.a(x) + n.b(x)), a=conv(3, 3), b=conv(3, 3), fc=nn.Linear(3, 2))
    with torch.no_grad():
        for filters, sizes in ((model.a, [3.0, 2.0, 0.1]), (model.b, [0.1, 2.0, 3.0])):
            filters.weight.copy_(torch.tensor(sizes).view(3, 1, 1, 1).expand_as(filters.weight))
    found = removable(model, {"a": [0, 1, 2], "b": [0, 1, 2]}, IMAGES)
    assert found.filters == {"a": [0, 2], "b": [0, 2]}


def test_of_unequal_groups_the_smallest_filters_go():
    model = nn.Sequential(conv(3, 4), conv(4, 8, groups=2), conv(8, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.arange(8.0).view(8, 1, 1, 1).expand_as(model[1].weight))
    found = removable(model, {"1": [1, 2, 3, 6]}, IMAGES)
    assert found.filters == {"1": [1, 6]}


@pytest.mark.parametrize(
    ("filters", "example", "message"),
    [
        ({"9": [0]}, IMAGES, "no layer '9'"),
        ({"0": [8]}, IMAGES, "no filter 8"),
        ({"0": [0]}, torch.randn(2, 5, 8, 8), "does not run on the example"),
    ],
)
def test_bad_input_is_named(filters, example, message):
    with pytest.raises(InputError, match=message):
        removable(nn.Sequential(conv(3, 8), conv(8, 2)), filters, example)


def test_a_network_that_draws_numbers_is_refused():
    model = Net(pooled(lambda n, x: F.dropout(n.a(x))), a=conv(3, 8), fc=nn.Linear(8, 4))
    with pytest.raises(InputError, match="other outputs each time"):
        removable(model, {"a": [0]}, IMAGES)


def test_a_network_that_cannot_be_copied_is_refused():
    model = nn.Sequential(conv(3, 8), conv(8, 2))
    model.cached = model[0].weight * 2  # not a leaf: torch refuses to copy it
    with pytest.raises(InputError, match="cannot be copied"):
        removable(model, {"0": [0]}, IMAGES)
