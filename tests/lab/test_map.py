"""lab.map on local processes: what is kept, what is done again, what a failure takes with it."""

import functools
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tests.lab import cells, drawing

from phenoscope.core.errors import InputError
from phenoscope.lab import CellError, Lab
from phenoscope.lab.local import local
from phenoscope.lab.map import Keeper


def keeper(folder, *, jobs=1, sources="sources", **options):
    return Keeper(Path(folder) / "kept", functools.partial(local, jobs=jobs), sources, **options)


def lab(folder, root=0, **options):
    return Lab(root, keeper=keeper(folder, **options))


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_cells_and_finished_cells_are_not_done_again(tmp_path, jobs):
    given = [{"number": number, "folder": str(tmp_path)} for number in (3, 1, 2)]
    for _ in range(2):
        found = lab(tmp_path, jobs=jobs).map(cells.square, given)
        assert [int(each.square) for each in found] == [9, 1, 4]
    assert [cells.begun(tmp_path, number) for number in (1, 2, 3)] == [1, 1, 1]


def test_a_result_is_the_same_on_one_process_as_on_two_with_all_global_random_states_fixed(tmp_path):
    given = [{"number": number} for number in range(3)]
    alone = lab(tmp_path / "a", jobs=1).map(drawing.draws, given)
    beside = lab(tmp_path / "b", jobs=2).map(drawing.draws, given)
    bare = Lab(0).map(drawing.draws, given)
    for one, two, three in zip(alone, beside, bare, strict=True):
        xr.testing.assert_identical(one, two)
        assert float(three.numpy) == float(one.numpy) and int(one.threads) == 1
    assert float(alone[0].torch) != float(alone[1].torch)


def test_the_users_random_states_and_threads_are_as_before(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads()  # noqa: NPY002
    lab(tmp_path).map(drawing.draws, [{"number": 1}])
    assert torch.equal(before[0], torch.get_rng_state()) and before[3] == torch.get_num_threads()
    assert (before[1] == np.random.get_state()[1]).all() and before[2] == random.getstate()  # noqa: NPY002


def test_another_seed_argument_or_source_is_another_cell(tmp_path):
    one = {"number": 1, "folder": str(tmp_path)}
    lab(tmp_path).map(cells.square, [one])
    lab(tmp_path, root=1).map(cells.square, [one])
    lab(tmp_path, sources="changed").map(cells.square, [one])
    lab(tmp_path, fresh=True).map(cells.square, [one])
    assert cells.begun(tmp_path, 1) == 4
    lab(tmp_path).map(cells.square, [one])
    assert cells.begun(tmp_path, 1) == 4


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_cell_names_its_arguments_and_leaves_the_others(tmp_path, jobs):
    given = [{"number": number} for number in range(4)]
    with pytest.raises(CellError, match=r"1 of 4 cells failed.*number=2.*ZeroDivisionError: nothing to divide by"):
        lab(tmp_path, jobs=jobs).map(cells.sometimes_fails, given)
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_a_killed_process_is_replaced_and_its_cell_done_again(tmp_path):
    given = [{"number": number, "folder": str(tmp_path)} for number in range(4)]
    found = lab(tmp_path, jobs=2).map(cells.dies_once, given)
    assert [int(each.number) for each in found] == [0, 1, 2, 3] and cells.begun(tmp_path, 1) == 2


def test_a_cell_that_always_kills_its_process_is_named_and_the_others_are_kept(tmp_path):
    with pytest.raises(CellError, match=r"1 of 3 cells failed.*number=1.*was killed 2 times"):
        lab(tmp_path, jobs=2).map(cells.always_dies, [{"number": number} for number in range(3)])
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_damaged_cell_is_done_again(tmp_path):
    given = [{"number": 5, "folder": str(tmp_path)}]
    lab(tmp_path).map(cells.square, given)
    (kept,) = (tmp_path / "kept").iterdir()
    for file in kept.rglob(".zarray"):
        file.write_text("{")
    assert int(lab(tmp_path).map(cells.square, given)[0].square) == 25 and cells.begun(tmp_path, 5) == 2


def test_cells_run_at_the_same_time_on_two_processes(tmp_path):
    given = [{"number": number, "folder": str(tmp_path)} for number in range(2)]
    assert len(lab(tmp_path, jobs=2).map(cells.barrier, given)) == 2


def test_two_runs_of_the_same_cells_at_once_both_end_well(tmp_path):
    given = [{"number": number} for number in range(8)]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: lab(tmp_path, jobs=2).map(cells.square, given), range(2)))
    for found in both:
        assert [int(each.square) for each in found] == [number**2 for number in range(8)]
    assert len(list((tmp_path / "kept").iterdir())) == 8  # and nothing half-written is left beside them


def test_after_kill_minus_9_a_run_goes_on_with_what_is_left(tmp_path):
    program = (
        "import functools\nfrom pathlib import Path\nfrom phenoscope.lab import Lab\n"
        "from phenoscope.lab.local import local\nfrom phenoscope.lab.map import Keeper\nfrom tests.lab import cells\n"
        f"keeper = Keeper(Path({str(tmp_path)!r}) / 'kept', functools.partial(local, jobs=2), 'sources')\n"
        f"given = [dict(number=n, folder={str(tmp_path)!r}, seconds=0.5) for n in range(6)]\n"
        "Lab(0, keeper=keeper).map(cells.slow, given)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    limit = time.monotonic() + 60
    while not list((tmp_path / "kept").glob("[!.]*")) and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2.5)  # its workers notice within a second that it is gone
    finished = len(list((tmp_path / "kept").glob("[!.]*")))
    assert 1 <= finished < 6
    before = sum(cells.begun(tmp_path, number) for number in range(6))
    given = [{"number": number, "folder": str(tmp_path), "seconds": 0.5} for number in range(6)]
    assert len(lab(tmp_path, jobs=2).map(cells.slow, given)) == 6
    assert sum(cells.begun(tmp_path, number) for number in range(6)) - before == 6 - finished


def test_a_cell_may_print_and_may_return_an_array(tmp_path):
    assert int(lab(tmp_path, jobs=2).map(cells.chatty, [{"number": n} for n in range(2)])[1].number) == 1
    found = lab(tmp_path).map(cells.array, [{"number": 4}])[0]
    assert found.value.sel(place="first") == 4.0 and not found.attrs


def test_a_cell_that_returns_no_dataset_or_stands_inside_a_function_is_refused(tmp_path):
    with pytest.raises(CellError, match=r"must return an xarray\.Dataset, not a int"):
        lab(tmp_path).map(cells.wrong, [{"number": 1}])

    def inner(lab, *, number):
        return xr.Dataset()

    with pytest.raises(InputError, match="top of a module"):
        lab(tmp_path).map(inner, [{"number": 1}])
    with pytest.raises(InputError, match="cannot be a parameter"):
        lab(tmp_path).map(cells.square, [{"number": object()}])


def test_progress_counts_kept_and_new_cells(tmp_path):
    said = []
    lab(tmp_path).map(cells.square, [{"number": 1}])
    lab(tmp_path, progress=lambda *state: said.append(state)).map(cells.square, [{"number": n} for n in range(3)])
    assert [state[:2] for state in said] == [(1, 3), (2, 3), (3, 3)] and said[-1][2] == "number=2"
