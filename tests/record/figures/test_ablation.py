import numpy as np
import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.record.ablate import ablate
from phenoscope.record.figures import ablation


@pytest.fixture
def table(recorded):
    model, _ = recorded
    x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    want = model(x).argmax(1)
    chosen = {"0": [0, 3, 5], "2": [], "4": [1, 2]}
    return ablate(model, chosen, lambda net: (net(x).argmax(1) == want).float().mean().item(), repeats=5, generator=0)


def test_marks_stand_at_the_drops_in_percentage_points(table):
    figure = ablation(table)
    rows = table.sel(layer=["0", "4", "all layers"])  # of layer 2 nothing was zeroed
    assert list(figure.layout.yaxis.ticktext) == ["0", "4", "all layers"]
    random, chosen, norm = figure.data
    # the same float64 numbers, times 100
    np.testing.assert_allclose(chosen.x, 100 * rows["drop"], rtol=1e-12)
    np.testing.assert_allclose(norm.x, 100 * rows["norm_drop"], rtol=1e-12)
    np.testing.assert_allclose(random.x, 100 * rows["random_mean"], rtol=1e-12)
    np.testing.assert_allclose(random.x + random.error_x.array, 100 * rows["random_high"], atol=1e-12)
    np.testing.assert_allclose(random.x - random.error_x.arrayminus, 100 * rows["random_low"], atol=1e-12)


def test_the_legend_names_the_selection_escaped(table):
    table.attrs["selection"] = "<b>redundant"
    assert ablation(table).data[1].name == "&lt;b&gt;redundant"


def test_a_table_without_zeroed_filters_or_with_a_missing_part_is_an_error(table):
    with pytest.raises(InputError, match="no filter was zeroed"):
        ablation(table.assign(count=0 * table["count"]))
    with pytest.raises(InputError, match="'norm_drop' is missing"):
        ablation(table.drop_vars("norm_drop"))
