import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.data import OUTLINES, PATTERNS, shapes, texture


def test_the_bench_is_as_registered():
    made = shapes(train=1500, test=500)
    x, y = made.train
    assert x.shape == (1500, 3, 32, 32) and made.test[0].shape == (500, 3, 32, 32)
    assert abs(x.double().mean().item()) < 1e-5 and abs(x.double().std(correction=0).item() - 1) < 1e-5  # float32
    low, high = made.range
    assert x.min() >= low - 1e-5 and x.max() <= high + 1e-5
    assert made.classes == ("circle", "square", "triangle", "star", "cross")
    factors = made.factors["train"]
    assert [OUTLINES[k] for k in factors.shape[:9, 0]] == [made.classes[k] for k in y[:9]]
    assert factors.radius.min() >= 6 and factors.radius.max() <= 9 and not factors.rotation.any()
    apart = (factors.color[:, 0] - factors.background_color).abs().amax(1)
    assert apart.min() >= 0.3
    # five equally likely classes: standard deviation of a count of 1500 is 15.5
    assert (y.bincount() - 300).abs().max() < 5 * 15.5
    border = torch.ones(32, 32, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert made.masks["train"].any((2, 3)).all()
    assert not (made.masks["train"][:, 0] & border).all((1, 2)).any()
    for axis in (factors.x[:, 0], factors.y[:, 0]):
        assert (axis >= factors.radius[:, 0]).all() and (axis <= 32 - factors.radius[:, 0]).all()


def test_parts_differ_and_the_seed_decides():
    one, same, other = (shapes(train=20, validation=5, test=10, generator=seed) for seed in (0, 0, 1))
    assert torch.equal(one.train[0], same.train[0]) and not torch.equal(one.train[0], other.train[0])
    assert {part: len(factors) for part, factors in one.factors.items()} == {"train": 20, "validation": 5, "test": 10}
    for part in ("train", "validation", "test"):
        images, masks = one.render(one.factors[part])
        torch.testing.assert_close(images, getattr(one, part)[0], rtol=0, atol=1e-5)  # float32, standardized
        assert torch.equal(masks, one.masks[part])


def test_a_planted_correlation_is_there_and_its_control_is_not():
    tied = [[0.05, 0.95]] + 3 * [[0.95, 0.05]]
    knobs = dict(train=4000, test=10, classes=OUTLINES[:4], textures=("flat", "stripes"))
    for law, expected in ((tied, (0.95, 0.05)), (None, (0.5, 0.5))):
        made = shapes(**knobs, correlate=None if law is None else {"texture": law})
        striped = (made.factors["train"].texture[:, 0] == PATTERNS.index("stripes")).double()
        y = made.train[1]
        # a share of 1000 images is off by at most 0.016 a standard deviation
        assert striped[y == 0].mean().item() == pytest.approx(expected[0], abs=0.08)
        assert striped[y > 0].mean().item() == pytest.approx(expected[1], abs=0.05)


def test_colors_and_backgrounds_may_be_tied_to_the_class():
    made = shapes(
        train=300,
        test=10,
        classes=("bar", "ring"),
        colors=("red", (0.0, 1.0, 0.0)),
        backgrounds=("flat", "checks"),
        correlate={"color": torch.eye(2), "background": torch.eye(2).flip(0)},
    )
    factors, y = made.factors["train"], made.train[1]
    assert torch.equal(factors.color[:, 0, 1] == 1.0, y == 1)
    assert torch.equal(factors.background == PATTERNS.index("checks"), y == 0)


@pytest.mark.parametrize(
    ("label", "names"),
    [("texture", ("stripes", "dots", "flat")), ("color", ("red", "blue")), ("background", ("smooth", "flat"))],
)
def test_any_listed_factor_can_be_the_label(label, names):
    plural = {"texture": "textures", "color": "colors", "background": "backgrounds"}[label]
    made = shapes(train=50, test=10, label=label, **{plural: names})
    assert made.classes == names and set(made.train[1].tolist()) == set(range(len(names)))
    factors = made.factors["train"]
    if label == "texture":
        assert [PATTERNS[k] for k in factors.texture[:, 0]] == [names[k] for k in made.train[1]]
    if label == "color":
        assert torch.equal(factors.color[:, 0, 0] > 0.5, made.train[1] == 0)


def test_two_objects_are_of_different_shapes_and_do_not_touch():
    made = shapes(train=400, test=10, second=0.5, radius=(4.5, 7.0))
    masks, factors = made.masks["train"], made.factors["train"]
    two = factors.shape[:, 1] >= 0
    assert masks.shape == (400, 2, 32, 32) and 150 < int(two.sum()) < 250
    assert not masks[~two, 1].any() and masks[two, 1].any((1, 2)).all()
    assert not (masks[:, 0] & masks[:, 1]).any()
    assert (factors.shape[two, 0] != factors.shape[two, 1]).all()
    ground = factors.background_color[:, None]
    assert ((factors.color - ground).abs().amax(2) >= 0.3)[two].all()


def test_gray_images_have_one_channel():
    made = shapes(train=20, test=5, channels=1, size=24, radius=(4, 6), scale="unit")
    assert made.train[0].shape == (20, 1, 24, 24) and made.range == (0.0, 1.0)
    images, _ = made.render(made.factors["test"])
    torch.testing.assert_close(images, made.test[0], rtol=0, atol=1e-6)
    assert torch.equal(made.factors["train"].color[..., 0], made.factors["train"].color[..., 2])


def test_a_small_network_learns_the_shapes():
    from phenoscope.models import gapnet

    knobs = dict(colors=["black"], background_colors=["white"], radius=(8.0, 9.0), classes=("circle", "cross"))
    made = shapes(train=500, test=300, **knobs)
    network = gapnet(num_classes=2, width=(8, 16), generator=0)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(6):
        for x, y in zip(made.train[0].split(50), made.train[1].split(50), strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    with torch.no_grad():
        right = (network.eval()(made.test[0]).argmax(1) == made.test[1]).double().mean().item()
    assert right > 0.8  # chance is one half


def test_textures_without_objects():
    x = texture(("stripes", "noise"), 6, colors=["gray"], generator=0)
    assert x.shape == (6, 3, 32, 32) and x.min() >= 0.25 - 1e-6 and x.max() <= 0.75 + 1e-6
    assert (x.std((1, 2, 3)) > 0.05).all()
    assert texture("flat", 1, size=8, generator=0).std((2, 3)).max() < 1e-6
    with pytest.raises(InputError, match="n must"):
        texture("dots", 0)


@pytest.mark.parametrize(
    ("knobs", "culprit"),
    [
        ({"classes": ("blob", "star")}, "blob"),
        ({"classes": ("star",)}, "two values"),
        ({"classes": ("star", "star")}, "once"),
        ({"textures": ("smooth",)}, "smooth"),
        ({"radius": (9, 6)}, "radius"),
        ({"radius": (6, 17)}, "radius"),
        ({"second": 1.0, "radius": (6, 9)}, "radius"),
        ({"colors": ("pink",)}, "pink"),
        ({"colors": ((1, 2, 3),)}, "color"),
        ({"correlate": {"texture": [[1.0]] * 4}}, "shape"),
        ({"correlate": {"texture": [[0.5]] * 5}}, "sum 1"),
        ({"correlate": {"shape": torch.eye(5)}}, "shape"),
        ({"correlate": {"color": torch.eye(5)}}, "color"),
        ({"label": "size"}, "label"),
        ({"label": "color"}, "color"),
        ({"channels": 2}, "channels"),
        ({"scale": "raw"}, "scale"),
        ({"train": 0}, "train"),
        ({"period": (0, 3)}, "period"),
    ],
)
def test_bad_arguments_are_named(knobs, culprit):
    with pytest.raises(InputError, match=culprit):
        shapes(**{"train": 10, "test": 5, **knobs})
