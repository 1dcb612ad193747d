from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import represent, train
from phenoscope.core.errors import InputError
from phenoscope.represent import ntxent, train_views

SIGNAL = 4


def planted(n=512, seed=0):
    """Four signs that every view keeps, and twelve numbers that every view draws anew."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (n, SIGNAL), generator=generator)
    return torch.cat([2.0 * signs - 1, torch.zeros(n, 12)], 1), (signs * 2 ** torch.arange(SIGNAL)).sum(1)


def view(x, generator):
    noise = 1.5 * torch.randn(len(x), 12, generator=generator)
    return torch.cat([x[:, :SIGNAL] + 0.1 * torch.randn(len(x), SIGNAL, generator=generator), noise], 1)


def encoder(seed=0):
    return train.build(lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)), generator=seed)


def seen(x, seed):
    return view(x, torch.Generator().manual_seed(seed))


def test_it_learns_what_views_share_and_forgets_what_they_do_not():
    x, _ = planted()
    whole = seen(x, 1)

    def found(net, label):
        return represent.probe(net, (whole[:400], label[:400]), (whole[400:], label[400:]), C=1.0)

    def shares(net):
        signs = [found(net, (x[:, k] > 0).long()) for k in range(SIGNAL)]
        return sum(signs) / SIGNAL, found(net, (whole[:, SIGNAL] > 0).long())

    net = encoder()
    before = shares(net)
    result = represent.simclr(net, x, view, steps=300, projection=(32, 8), batch_size=64, generator=0)
    assert result.encoder is net and result.history.loss.sizes == {"step": 300}
    assert result.history.loss[-20:].mean() < 0.8 * result.history.loss[:20].mean()
    after = shares(net)
    assert after[0] > max(0.9, before[0] + 0.1)
    assert after[1] < 0.65 < before[1] + 0.1  # chance is 0.5: what every view draws anew is gone


def test_the_two_views_of_a_batch_are_drawn_independently_and_stand_in_one_order():
    x = torch.arange(32.0)[:, None].repeat(1, 2)
    pairs = []

    def shaken(x, generator):
        return x + 0.1 * torch.rand(x.shape, generator=generator)

    def loss(first, second):
        pairs.append((first.detach().clone(), second.detach().clone()))
        return (first - second).square().mean()

    train_views(
        nn.Identity(), nn.Linear(2, 2), x, shaken, loss, steps=4, batch_size=8, generator=0,
        optimizer=partial(torch.optim.SGD, lr=0.0),
    )  # fmt: skip
    assert len(pairs) == 4
    for first, second in pairs:
        assert not torch.equal(first, second)
        assert (first - second).abs().max() < 0.5  # of one example: others lie 1 apart, times a weight


def test_an_incomplete_batch_is_left_out_but_the_only_one_is_not():
    sizes = []

    def loss(first, second):
        sizes.append(len(first))
        return ntxent(first, second)

    for n in (20, 5):
        train_views(
            nn.Linear(3, 3), nn.Identity(), torch.randn(n, 3), lambda x, generator: x, loss, steps=3, batch_size=8,
            optimizer=partial(torch.optim.SGD, lr=0.1), generator=0,
        )  # fmt: skip
    assert sizes == [8, 8, 8, 5, 5, 5]


def test_a_seed_gives_the_same_bits_for_tensors_pairs_and_labels_do_not_matter():
    x, y = planted(64)

    def weights(data):
        net = encoder()
        represent.simclr(net, data, view, steps=5, projection=(16, 4), batch_size=16, generator=3)
        return net[0].weight

    assert torch.equal(weights(x), weights((x, y)))
    assert torch.equal(weights((x, y)), weights((x, y.flip(0))))


def test_a_loader_and_a_head_of_ones_own_may_be_given():
    x, y = planted(64)
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    head = nn.Linear(8, 4)
    before = head.weight.detach().clone()
    found = represent.simclr(encoder(), loader, view, steps=6, projection=head, generator=0)
    assert found.head is head and not torch.equal(head.weight, before)


def test_features_of_images_are_flattened_and_the_encoders_mode_stays():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).double().eval()
    found = represent.simclr(
        net, torch.rand(16, 1, 6, 6).double(), lambda x, generator: x + 0.1, steps=2, batch_size=8, generator=0
    )
    assert found.head[1].in_features == 48 and found.head[1].weight.dtype == torch.float64
    assert not net.training and net[1].num_batches_tracked == 2


def test_watch_sees_encoder_and_head():
    x, _ = planted(64)
    watch = train.Watch({"spread": lambda net: represent.collapse(net(x)).std_ratio}, at=2)
    found = represent.simclr(encoder(), x, view, steps=4, batch_size=16, watch=watch, generator=0)
    assert found.watched.step.values.tolist() == [0, 2, 4]


def test_bad_input_is_named():
    with pytest.raises(InputError, match="projection"):
        represent.simclr(encoder(), planted()[0], view, steps=1, projection=(0, 3))
    with pytest.raises(InputError, match="NaN"):
        represent.simclr(encoder(), planted()[0] * torch.nan, view, steps=1)
    with pytest.raises(InputError, match="steps"):
        represent.simclr(encoder(), planted()[0], view, steps=0)
