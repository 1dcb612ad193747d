"""What kernels cost, side by side with peers: infinite networks, CNTK, the tangent kernel of a network, regression.

    python benchmarks/kernels.py [--parts infinite cntk empirical regression] [--device cuda] [--small] [--json]

Each part is a program of its own, `benchmarks/kernels_<part>.py`, whose description says what it compares and how; here
they run one after another, each in its own process, with the same settings. Every part checks first that both sides
compute the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PARTS = ("infinite", "cntk", "empirical", "regression")
FOLDER = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--small", action="store_true", help="small cases: only whether everything runs")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    options = parser.parse_args(arguments)
    asked = ["--device", options.device, *(["--small"] if options.small else [])]
    found: dict[str, Any] = {}
    for part in options.parts:
        command = [sys.executable, str(FOLDER / f"kernels_{part}.py"), *asked]
        if not options.json:
            print(f"\n{part}\n", flush=True)
            subprocess.run(command, check=True)
            continue
        print(f"{part} ...", file=sys.stderr, flush=True)
        done = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE, text=True)
        found[part] = json.loads(done.stdout[done.stdout.index("{") :])
    if options.json:
        print(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
