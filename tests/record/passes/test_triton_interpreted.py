"""The Triton kernels without a GPU: Triton's own interpreter runs them on the CPU, pointer table and all."""

import importlib.util
import os
import subprocess
import sys

import pytest

_PROGRAM = """
import numpy as np, torch, triton.language as tl
from torch import nn
from phenoscope.record.passes import triton_kernels as k
from phenoscope.record.passes.cuda import _programs, _row
from phenoscope.record.passes.layout import flat
from phenoscope.record.passes.plain import PlainPass
from phenoscope.record.passes.watched import round_down
from tests.record.passes.test_passes import LAYERS, watch, wiggle

elements = {getattr(torch, name): getattr(tl, name) for name in ("float32", "float64", "float16", "bfloat16")}
for dtype, element in elements.items():
    for kind, (make, _) in LAYERS.items():
        torch.manual_seed(0)
        module = nn.ModuleDict({"layer": make()}).to(dtype)
        layers = watch(module, 0.01)
        plain = PlainPass(layers)
        copies = {id(w.weight): flat(w.weight.detach()).clone() for w in layers}
        rows = np.stack([_row(w.weight.data_ptr(), copies[id(w.weight)], w, w.layout) for w in layers])
        programs = np.concatenate([_programs(i, row) for i, row in enumerate(rows)])
        filters = sum(map(len, layers))
        out = [torch.full((filters,), -1, dtype=d) for d in (torch.float64, torch.int32, torch.int32)]  # poisoned
        taus = torch.tensor([float(round_down(0.01, dtype))] * len(layers), dtype=torch.float64)
        wiggle(module, 0.02, 1)
        k.measure[(len(programs),)](
            torch.from_numpy(programs), torch.from_numpy(rows), taus, *out, element=element,
            wide=tl.float64 if dtype == torch.float64 else tl.float32, fields=k.FIELDS, tile=k.TILE, band=k.BAND)
        expected = plain.measure()()
        np.testing.assert_allclose(out[0], expected.distance, rtol=1e-12, err_msg=kind)
        np.testing.assert_array_equal(out[1], expected.changed, err_msg=kind)
        np.testing.assert_array_equal(out[2], expected.moved, err_msg=kind)
        for w in layers:
            assert torch.equal(copies[id(w.weight)], flat(w.weight.detach())), kind
print("all kinds agree")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed (it comes with torch's CUDA build)"
)
def test_the_triton_kernels_give_the_numbers_of_the_definition_for_every_kind_of_layer_and_dtype():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=250)
    assert ran.stdout.strip() == "all kinds agree", ran.stderr[-2000:]
