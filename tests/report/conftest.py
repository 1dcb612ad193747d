from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope.record import Recorder
from phenoscope.record.ablate import ablate
from phenoscope.record.redundant import least_evolved
from phenoscope.record.run import open_run
from phenoscope.report import run_report

HOSTILE = ["</script><img src=x onerror=alert(1)>", '<a href="javascript:alert(1)">x</a>', "%{meta}'\"&lt;\u2028`"]


def record(path: Path, names: list[str]) -> None:
    """A run of a small convolutional network with layers of these names, and all that may lie beside it."""
    torch.manual_seed(0)
    sizes = [3, *[6] * len(names)]
    model = nn.Sequential(
        OrderedDict({name: nn.Conv2d(a, b, 3, padding=1) for name, a, b in zip(names, sizes, sizes[1:], strict=False)})
    )
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x = torch.randn(16, 3, 12, 12)
    with Recorder(model, path, optimizer=optimizer, every=1) as recorder:
        for _ in range(8):
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss.item())
    want = model(x).argmax(1)
    table = ablate(
        model, least_evolved(open_run(path), 0.25), lambda net: (net(x).argmax(1) == want).float().mean().item(),
        repeats=3, generator=0,
    )  # fmt: skip
    table.attrs["selection"] = f"least evolved 25 % {HOSTILE[0]}"
    slimming = {
        "coords": {"state": {"dims": ["state"], "data": ["before", "after"]}},
        "data_vars": {
            name: {"dims": ["state"], "data": data}
            for name, data in {"parameters": [1234567, 999], "accuracy": [0.9, 0.85], "forward_ms": [2.0, 1.5]}.items()
        },
        "attrs": {
            "kept": json.dumps({names[0]: {"filters": [1, 2], "reason": f"coupled {HOSTILE[0]}"}}),
            "removed": json.dumps({names[-1]: [0]}),
            "selection": f"some {HOSTILE[0]}",
        },
    }
    (path / "ablation").mkdir()
    (path / "ablation" / "least_evolved.json").write_text(json.dumps({"dataset": table.to_dict()}))
    (path / "ablation" / "slimming.json").write_text(json.dumps({"dataset": slimming}))
    (path / "summary.json").write_text(json.dumps({"accuracy": 0.987, "notes": [f"A note. {HOSTILE[0]}"]}))
    np.save(path / "image.npy", x[0].numpy())


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs with everything, one of them with hostile names; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    record(folder / "plain", ["first", "second", "third"])
    record(folder / "<img src=x onerror=alert(2)>", HOSTILE)
    return [folder / "plain", folder / "<img src=x onerror=alert(2)>"]


@pytest.fixture(scope="session")
def report(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on both; not to be changed."""
    return run_report(runs, tmp_path_factory.mktemp("reports") / "new" / "report").parent


@pytest.fixture
def opened(browser):
    """opened(address, **settings of the window) -> a page; fails on any error, warning, dialog or request elsewhere."""
    contexts, troubles = [], []

    def load(address, **settings):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        home = address.split("/")[2]
        page.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append("a dialog opened"), dialog.dismiss()))
        page.on("request", lambda r: None if _own(r.url, home) else troubles.append(r.url))
        page.goto(address)
        return page

    yield load
    for context in contexts:
        context.close()
    assert troubles == []


def _own(url: str, home: str) -> bool:
    """Whether an address is on disk, in the page, or of the server at `home`."""
    scheme, _, rest = url.partition(":")
    return scheme in ("file", "data", "blob") or (bool(home) and rest.startswith(f"//{home}/"))
