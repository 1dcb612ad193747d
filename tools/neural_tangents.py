"""An environment of its own for the neural-tangents package, which the optional comparisons with it use.

    python tools/neural_tangents.py [FOLDER]        # .venv-nt unless said

The package's last release works with releases of JAX, numpy and scipy that nothing else here can live with. Without the
environment the tests that compare are skipped, and the benchmarks time this library alone. Some 3 GB, a minute or two.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-nt"
PACKAGES = ("neural-tangents==0.6.5", "jax==0.4.30", "jaxlib==0.4.30", "numpy<2", "scipy<1.13")
CHECK = "from neural_tangents import stax; stax.Dense(1)"


def interpreter(folder: Path = FOLDER) -> Path:
    """The environment's Python, whether it is there or not."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def main(arguments: list[str]) -> None:
    """Make the environment, or complete it, and import the package once."""
    folder = Path(arguments[0]) if arguments else FOLDER
    if sys.version_info >= (3, 13):
        raise SystemExit("these releases of jax and numpy need Python 3.11 or 3.12: run this script with one of them")
    if not interpreter(folder).exists():
        venv.create(folder, with_pip=True)
    python = str(interpreter(folder))
    steps = (
        [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *PACKAGES],
        [python, "-W", "ignore", "-c", CHECK],
    )
    for step in steps:
        if subprocess.run(step).returncode:
            raise SystemExit(f"failed: {' '.join(step)}")
    print(f"neural-tangents stands in {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
