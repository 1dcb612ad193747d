import os
import subprocess
import sys

import pytest
import torch

from phenoscope import kernels
from phenoscope.core.errors import InputError

CODE = """
import torch
from phenoscope import kernels

def images(n, channels, height, width, seed):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(seed))

for channels, height, width, padding, depth in ((2, 2, 3, "zero", 3), (1, 3, 3, "circular", 2)):
    x, y = images(2, channels, height, width, 0), images(3, channels, height, width, 1)
    y[0], y[1, :, :1] = x[0], 0.0
    for pair in ([(x, y)] if padding == "zero" else [(y,)]):
        plain = kernels.cntk(*pair, depth=depth, padding=padding, method="torch")
        found = kernels.cntk(*pair, depth=depth, padding=padding, method="triton", dtype=torch.float32, chunk=4)
        # single precision: 1e-7 an operation, some hundred of them
        assert (found - plain).abs().max() < 1e-5 * plain.abs().max(), (padding, len(pair))
print("as exact as single precision")
"""


def test_the_kernel_for_cuda_gives_what_plain_torch_gives():
    """Triton's interpreter runs it on the CPU, in a process of its own: the switch is read at import."""
    pytest.importorskip("triton", reason="NO TRITON: the kernel for CUDA was not interpreted")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert "as exact as single precision" in done.stdout, done.stderr[-2000:]


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from phenoscope.kernels.limits.arcsine import polynomials
from phenoscope.kernels.limits.triton_sums import sums

arcsine, root = (tuple(each) for each in polynomials("float32"))
fixed = dict(height=3, width=4, circular=False, arcsine=arcsine, root_of=root, top=0.999999)
kinds = {name: "*fp32" for name in ("x1", "q1", "x2", "q2", "out")} | {"first": "*i64", "second": "*i64"}
kinds |= {"half": "fp32", "slope": "fp32"} | dict.fromkeys(fixed, "constexpr")
signature = {name: kinds.get(name, "i32") for name in sums.arg_names}
source = ASTSource(fn=sums, signature=signature, constexprs=fixed)
made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
print("shared memory:", made.metadata.shared, "shuffles:", made.asm["ptx"].count("shfl.sync"))
"""


def test_the_kernel_compiles_for_an_h200_without_one_and_needs_no_shared_memory(tmp_path):
    """The interpreter takes what the compiler does not: it is compiled too, two shuffles for every row's sum."""
    pytest.importorskip("triton", reason="NO TRITON: the kernel for CUDA was not compiled")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    code = tmp_path / "compile.py"
    code.write_text(COMPILE)
    done = subprocess.run([sys.executable, str(code)], env=environment, capture_output=True, text=True, check=False)
    assert f"shared memory: 0 shuffles: {3 * 2 + 3 * 4}" in done.stdout, done.stderr[-2000:]


def test_without_cuda_it_says_so():
    with pytest.raises(InputError, match=r"'triton' does not suit: .*(CUDA|not installed)"):
        kernels.cntk(torch.ones(2, 1, 3, 3), method="triton", dtype=torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: the kernel for CUDA was not run")
@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_on_cuda_it_agrees_with_double_precision_to_four_digits(padding):
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = kernels.cntk(x, depth=6, padding=padding)
    found = kernels.cntk(x.cuda(), depth=6, padding=padding, dtype=torch.float32, method="triton")
    assert ((found.cpu() - plain).abs() / plain).max() < 1e-4
    assert torch.equal(found, kernels.cntk(x.cuda(), depth=6, padding=padding, dtype=torch.float32, method="triton"))
