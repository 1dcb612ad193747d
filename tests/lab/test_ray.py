"""The ray engine, on a real local cluster of two nodes."""

import functools
import os

import pytest
import xarray as xr
from tests.lab import cells

from phenoscope.lab import CellError, Lab
from phenoscope.lab.local import local
from phenoscope.lab.map import Keeper

ray = pytest.importorskip("ray", reason="needs the extra [ray]")
# Ray's own code warns about itself while it starts and ends.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([os.getcwd(), "src"])}}  # noqa: PTH109
    ray.init(address=made.address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def on_cluster(folder):
    from phenoscope.lab.ray import on_ray

    return Lab(0, keeper=Keeper(folder / "kept", functools.partial(on_ray, address=None, jobs=None), "sources"))


def test_two_nodes_give_what_one_process_gives(cluster, tmp_path):
    given = [{"number": number} for number in range(6)]
    here = Lab(0, keeper=Keeper(tmp_path / "here", functools.partial(local, jobs=1), "sources"))
    for one, other in zip(on_cluster(tmp_path).map(cells.square, given), here.map(cells.square, given), strict=True):
        xr.testing.assert_identical(one.drop_vars("process"), other.drop_vars("process"))
    assert sum(node["Alive"] for node in ray.nodes()) == 2


def test_a_worker_killed_in_the_middle_loses_nothing(cluster, tmp_path):
    given = [{"number": number, "folder": str(tmp_path)} for number in range(4)]
    found = on_cluster(tmp_path).map(cells.dies_once, given)
    assert [int(each.number) for each in found] == [0, 1, 2, 3] and cells.begun(tmp_path, 1) == 2


def test_a_failing_cell_is_named_and_the_others_are_kept(cluster, tmp_path):
    with pytest.raises(CellError, match=r"1 of 4 cells failed.*number=2.*ZeroDivisionError"):
        on_cluster(tmp_path).map(cells.sometimes_fails, [{"number": number} for number in range(4)])
    assert len(list((tmp_path / "kept").iterdir())) == 3
