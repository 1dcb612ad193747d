"""What results are addressed by."""

import functools
import importlib
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.lab.seeds import seed_for
from phenoscope.lab.sources import address, plain, study_sources

simple = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(simple, simple)
def test_two_values_have_the_same_address_only_if_they_read_the_same(one, other):
    same = json.dumps(address(one)) == json.dumps(address(other))
    assert same == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def test_functions_are_addressed_by_name_and_the_users_by_source_as_well(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "users_model.py"
    file.write_text("def build():\n    return 1\n")
    module = importlib.import_module("users_model")
    before = address(module.build)
    assert before.startswith("users_model:build@")
    file.write_text("def build():\n    return 2\n")
    assert address(module.build) != before
    del sys.modules["users_model"]
    assert address(seed_for) == "phenoscope.lab.seeds:seed_for"
    partial = functools.partial(seed_for, 0, path=1)
    assert address(partial) != address(functools.partial(seed_for, 1, path=1))
    assert plain(partial) == "phenoscope.lab.seeds:seed_for(path=1)"


def test_arrays_are_addressed_by_content():
    one = np.arange(3.0)
    assert address(one) == address(one.copy()) != address(one + 1)
    assert address(one) != address(one.astype(np.float32))
    assert address(np.float64(2.0)) == address(2.0)


def test_what_has_no_address_is_refused():
    with pytest.raises(InputError, match="a object cannot be a parameter"):
        address([1, object()])


def test_a_change_of_a_bench_changes_the_digest_of_a_study_that_imports_it(tmp_path, monkeypatch):
    package = tmp_path / "phenoscope_like"
    monkeypatch.setattr("phenoscope.lab.sources._OWN", "phenoscope_like")
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in (package, package / "studies", package / "studies" / "benches", package / "studies" / "theory"):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    (package / "studies" / "theory" / "one.py").write_text("from ..benches import first\nfrom ... import other\n")
    (package / "studies" / "benches" / "first.py").write_text("from .second import thing\n")
    (package / "studies" / "benches" / "second.py").write_text("thing = 1\n")
    (package / "other.py").write_text("a = 1\n")
    before = study_sources("phenoscope_like.studies.theory.one")
    (package / "other.py").write_text("a = 2\n")
    assert study_sources("phenoscope_like.studies.theory.one") == before
    (package / "studies" / "benches" / "second.py").write_text("thing = 2\n")
    assert study_sources("phenoscope_like.studies.theory.one") != before


def test_seeds_differ_by_path_and_never_change():
    assert seed_for(0, "split", 3) == 3889278739
    seeds = {seed_for(root, name, number) for root in range(5) for name in ("a", "b") for number in range(50)}
    assert len(seeds) == 500 and all(0 <= seed < 2**32 for seed in seeds)
