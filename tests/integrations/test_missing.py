"""Without its framework an integration says which extra to install."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(("name", "extra"), [("lightning", "lightning"), ("transformers", "transformers")])
def test_a_missing_framework_is_named_with_its_extra(monkeypatch, name, extra):
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"phenoscope.integrations.{name}", raising=False)
    with pytest.raises(ImportError, match=rf"phenoscope\[{extra}\]"):
        importlib.import_module(f"phenoscope.integrations.{name}")
