import torch

from phenoscope.data import digits, tinted_digits


def test_every_image_is_a_digit_mixed_from_two_colors_of_its_own():
    split, plain = tinted_digits(generator=3), digits(train=1300, scale="unit", generator=0)
    assert torch.equal(split.train[1], plain.train[1]) and torch.equal(split.test[1], plain.test[1])
    for (x, _), (m, _) in ((split.train, plain.train), (split.test, plain.test)):
        assert x.shape[1:] == (3, 12, 12) and x.min() >= 0 and x.max() <= 1
        # somewhere on the canvas the image is ground + m (ink - ground): solve for the two colors and the place
        for image, mask in zip(x[:40], m[:40, 0], strict=True):
            errors = []
            for top in range(5):
                for left in range(5):
                    canvas = torch.zeros(12, 12)
                    canvas[top : top + 8, left : left + 8] = mask
                    design = torch.stack([canvas.flatten(), 1 - canvas.flatten()], 1).double()
                    fit = torch.linalg.lstsq(design, image.flatten(1).T.double())
                    errors.append(((design @ fit.solution - image.flatten(1).T).abs().max().item(), fit.solution))
            error, (ink, own_ground) = min(errors, key=lambda e: e[0])
            assert error < 1e-5  # float32 pixels
            assert (ink >= 0.5 - 1e-5).all() and (own_ground <= 0.4 + 1e-5).all()


def test_the_split_does_not_depend_on_the_seed_but_tints_and_places_do():
    one, same, other = (tinted_digits(generator=seed) for seed in (0, 0, 1))
    assert torch.equal(one.train[1], other.train[1])
    assert torch.equal(one.test[0], same.test[0]) and not torch.equal(one.test[0], other.test[0])
    assert (len(one.train[1]), len(one.test[1])) == (1300, 497)


def test_tints_say_nothing_about_the_class():
    x, y = tinted_digits().train
    corner = x[:, :, 0, 0]  # mostly ground
    means = torch.stack([corner[y == digit].mean(0) for digit in range(10)])
    # about 130 images a class, each mean off by 0.12 / sqrt(130) = 0.01
    assert (means - means.mean(0)).abs().max() < 0.05
