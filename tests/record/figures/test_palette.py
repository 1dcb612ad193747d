import re

from phenoscope.record.figures.palette import ACCENT, NEUTRAL, SECOND, by_depth, spread


def luminance(color: str) -> float:
    """Relative luminance as the Web Content Accessibility Guidelines define it."""
    channels = [int(n) / 255 for n in re.findall(r"\d+", color)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_colour_is_readable_on_the_light_and_on_the_dark_page():
    light, dark = luminance("rgb(252, 252, 251)"), luminance("rgb(20, 23, 26)")
    for color in [*by_depth(40), ACCENT, SECOND, NEUTRAL]:
        own = luminance(color)
        assert (light + 0.05) / (own + 0.05) >= 3, color  # the guidelines' bound for graphics
        assert (own + 0.05) / (dark + 0.05) >= 3, color


def test_spread_keeps_order_first_and_last():
    assert spread(range(5), 9) == [0, 1, 2, 3, 4]
    assert spread(range(100), 5) == [0, 25, 50, 74, 99]
    assert spread(range(100), 0) == []
