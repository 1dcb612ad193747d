import pytest
import torch
from torch import nn

from phenoscope import models
from phenoscope.record import Recorder, open_run
from phenoscope.report.paper import observed, paper_table


@pytest.mark.parametrize(
    ("build", "layers", "zeroed"),
    [(models.vgg, models.VGG16_OBSERVED, "68 of 256"), (models.resnet, models.RESNET50_OBSERVED, "68 of 128")],
)
def test_the_papers_numbers_stand_as_a_quotation_on_runs_of_its_networks(build, layers, zeroed, tmp_path):
    model = build(width=0.0625, generator=0)
    with Recorder(model, tmp_path, every=1, threshold=1e-3, snapshots="first", final=False) as recorder:
        recorder.step()
    run = open_run(tmp_path)
    assert observed(run) == list(layers)
    text = paper_table(run)
    assert text.startswith("<blockquote>") and "Quoted, not measured here" in text and zeroed in text
    assert all(layer in text for layer in layers)


def test_another_network_has_no_quotation(tmp_path):
    torch.manual_seed(0)
    with Recorder(nn.Linear(2, 2), tmp_path, every=1, threshold=1e-3) as recorder:
        recorder.step()
    assert observed(open_run(tmp_path)) is None and paper_table(open_run(tmp_path)) == ""
