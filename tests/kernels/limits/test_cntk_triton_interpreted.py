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

for n, channels, height, width, padding, depth in ((2, 2, 3, 4, "zero", 2), (2, 1, 4, 3, "circular", 3)):
    x, y = images(n, channels, height, width, 0), images(n + 1, channels, height, width, 1)
    y[0], y[1, :, :2] = x[0], 0.0
    for pair in ((x, y), (y,)):
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
