import math

import pytest
import torch

from phenoscope import data, measure
from phenoscope.core.errors import InputError
from phenoscope.data.synthetic.bits import _icosahedron


def test_the_vertices_are_those_of_an_icosahedron():
    points = _icosahedron()
    products = points @ points.T
    # every vertex: itself, 5 neighbors at 1 / sqrt 5, 5 at -1 / sqrt 5, and its opposite
    wanted = torch.tensor([-1.0, *[-1 / math.sqrt(5)] * 5, *[1 / math.sqrt(5)] * 5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(products.sort(1).values, wanted.expand(12, 12))


def test_the_rule_is_what_rotations_leave():
    bits = data.icosahedral_bits()
    x = bits.inputs
    assert x.shape == (4096, 12) and len(x.unique(dim=0)) == 4096 and set(x.unique().tolist()) == {-1, 1}
    assert len(bits.score.unique()) == 34
    assert float(bits.probabilities[:, 1].mean()) == pytest.approx(0.497, abs=5e-4)
    assert torch.equal(bits.score, bits.score.flip(0))  # the patterns in reverse are all their opposites
    linear = x.double().T @ (bits.probabilities[:, 1] - bits.probabilities[:, 1].mean())
    assert float(linear.abs().max()) < 1e-9
    # a rotation by a fifth of a turn about a vertex permutes the vertices
    points = _icosahedron()
    axis = points[0]
    skew = torch.tensor([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]], dtype=torch.float64)
    turn = torch.linalg.matrix_exp(2 * math.pi / 5 * skew)
    order = torch.cdist(points @ turn.T, points).argmin(1)
    assert sorted(order.tolist()) == list(range(12)) and order.tolist() != list(range(12))
    place = ((x[:, order] > 0).long() * 2 ** torch.arange(11, -1, -1)).sum(1)
    torch.testing.assert_close(bits.score[place], bits.score)


def test_parts_are_disjoint_and_all_there_is():
    bits = data.icosahedral_bits(train=1000, generator=3)
    assert len(bits.train[1]) == 1000 and len(bits.test[1]) == 3096
    together = torch.cat([bits.train[0], bits.test[0]])
    assert len(together.unique(dim=0)) == 4096
    again, other = data.icosahedral_bits(train=1000, generator=3), data.icosahedral_bits(train=1000, generator=4)
    assert torch.equal(again.train[0], bits.train[0]) and not torch.equal(other.train[0], bits.train[0])
    assert data.load(data.icosahedral_bits, generator=0).probabilities.shape == (4096, 2)
    moved = bits.to("cpu")
    assert isinstance(moved, data.Bits) and moved.inputs.shape == (4096, 12)


def test_soft_labels_have_the_information_asked_for():
    bits = data.icosahedral_bits(information=0.99)
    found = measure.mi_binned(bits.inputs, bits.probabilities)
    assert found.input == pytest.approx(12, abs=1e-9) and found.label == pytest.approx(0.99, abs=1e-9)
    # at the threshold itself, were it the median, 9 % of the inputs would be coins: none is near a half
    assert float((bits.probabilities[:, 1] - 0.5).abs().min()) > 0.25
    drawn = torch.cat([bits.train[1], bits.test[1]]).double().mean()
    assert float(drawn) == pytest.approx(float(bits.probabilities[:, 1].mean()), abs=0.01)


def test_what_cannot_be_had_is_refused():
    with pytest.raises(InputError, match="information"):
        data.icosahedral_bits(information=1.0)
    with pytest.raises(InputError, match="train"):
        data.icosahedral_bits(train=4096)


def test_the_cube_has_every_pattern_once_and_the_parity_of_its_first_bits():
    cube = data.hypercube(bits=5, degree=3, generator=1)
    assert cube.inputs.shape == (32, 5) and len(cube.inputs.unique(dim=0)) == 32
    assert torch.equal(cube.score, cube.inputs.double()[:, 0] * cube.inputs[:, 1] * cube.inputs[:, 2])
    assert torch.equal(cube.probabilities[:, 1], (cube.score > 0).double()) and cube.score.mean() == 0
    both = torch.cat([cube.train[0], cube.test[0]])
    assert len(both.unique(dim=0)) == 32 and len(cube.train[0]) == 24
    for x, y in (cube.train, cube.test):
        assert torch.equal(2 * y - 1, x[:, :3].prod(1).long())


def test_parities_of_the_cube_are_orthogonal():
    scores = torch.stack([data.hypercube(bits=4, degree=k).score for k in range(5)])
    assert torch.equal(scores @ scores.T, 16 * torch.eye(5, dtype=torch.float64))
    assert torch.equal(scores[0], torch.ones(16, dtype=torch.float64))


@pytest.mark.parametrize("wrong", [{"bits": 0}, {"bits": 21}, {"bits": 3, "degree": 4}, {"bits": 3, "train": 8}])
def test_a_cube_that_there_is_not_is_refused(wrong):
    with pytest.raises(InputError, match="must be from"):
        data.hypercube(**wrong)
