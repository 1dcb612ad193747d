import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.data import OUTLINES, PATTERNS, add_tag, cue_conflict, shapes


def scenes(**knobs):
    law = torch.eye(3)[[1, 2, 0]] * 0.9 + 0.1 / 3
    own = dict(classes=OUTLINES[:3], textures=PATTERNS[1:4], correlate={"texture": law})
    return shapes(**{"train": 50, "test": 10, **own, **knobs})


def test_every_ordered_pair_of_classes_has_its_shape_and_its_texture():
    made = scenes()
    found = cue_conflict(made, 4, generator=0)
    pairs = list(zip(found.shape.tolist(), found.texture.tolist(), strict=True))
    assert sorted(set(pairs)) == [(a, b) for a in range(3) for b in range(3) if a != b]
    assert len(pairs) == 24 and found.x.shape == (24, 3, 32, 32) and found.masks.shape == (24, 1, 32, 32)
    for (shape, other), factors in zip(pairs, (found.factors[k : k + 1] for k in range(24)), strict=True):
        assert OUTLINES[factors.shape.item()] == made.classes[shape]
        assert PATTERNS[factors.texture.item()] == PATTERNS[1:4][(other + 1) % 3]
    torch.testing.assert_close(made.render(found.factors)[0], found.x)


@pytest.mark.parametrize(
    "knobs",
    [{"correlate": {}}, {"correlate": {"texture": torch.full((3, 3), 1 / 3)}}, {"second": 0.5, "radius": (4, 7)}],
)
def test_scenes_without_a_texture_for_each_class_are_refused(knobs):
    with pytest.raises(InputError, match="cue_conflict"):
        cue_conflict(scenes(**knobs))


def test_a_tag_goes_into_its_corner_and_nowhere_else():
    x = torch.full((5, 3, 32, 32), 0.3)
    tagged = add_tag(x, rows=torch.tensor([0, 2]), range=(-1.0, 2.0))
    changed = tagged != x
    assert changed[[0, 2]].any((1, 2, 3)).all() and not changed[[1, 3, 4]].any()
    rows, columns = changed[0, 0].nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (27, 30, 1, 10)
    assert set(tagged[0, 0, 27:31, 1:11].unique().tolist()) == {-1.0, 2.0}
    assert torch.equal(x, torch.full_like(x, 0.3))


@pytest.mark.parametrize("corner", ["lower left", "lower right", "upper left", "upper right"])
def test_corners_and_masks_of_rows(corner):
    tag = torch.ones(2, 3)
    tagged = add_tag(torch.zeros(2, 1, 8, 9), tag=tag, corner=corner, rows=torch.tensor([False, True]))
    expected = torch.zeros(8, 9)
    top, left = (1 if "upper" in corner else 5), (1 if "left" in corner else 5)
    expected[top : top + 2, left : left + 3] = 1
    assert torch.equal(tagged[1, 0], expected) and not tagged[0].any()


def test_a_tag_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="4x10"):
        add_tag(torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="corner"):
        add_tag(torch.zeros(1, 3, 32, 32), corner="middle left")
    assert add_tag(torch.zeros(1, 3, 4, 10))[0, 0].any()
