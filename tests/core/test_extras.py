"""Optional dependencies."""

import json

import pytest

from phenoscope.core.extras import need


def test_what_is_there_is_imported_and_what_is_not_names_the_extra():
    assert need("json", "anything") is json
    with pytest.raises(ImportError, match=r"nothing_of_that_name is not installed: pip install 'phenoscope\[some\]'"):
        need("nothing_of_that_name", "some")


def test_a_module_that_lacks_something_itself_says_what_it_lacks(tmp_path, monkeypatch):
    (tmp_path / "lacking.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        need("lacking", "some")
