"""What training many small networks costs: one plain loop after another, `vmap(grad)`, JAX, and `train.fleet`.

    python benchmarks/fleet.py [--threads 2] [--rounds 7] [--cases "mlp 16" "cnn 8x8"] [--device cuda] [--json]

Every contender works in a process of its own and waits for its turn: in each round all take one after another, in a new
order, so that the machine's moods fall on all alike. Microseconds a network-step (one step of SGD with momentum of one
network at batch 128), by the clock and of processor time, medians over the rounds; everything is included: drawing the
order, gathering the batch, losses kept. On a machine that others use too, trust processor time.

The first check is that a member of the fleet is what `train.fit` makes of it alone. JAX, where it is installed, takes
part on CPU with the multilayer perceptrons: `jit` of the whole step, which is `vmap` of loss, gradient and update.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

BATCH, EXAMPLES, RATE, MOMENTUM = 128, 1408, 0.05, 0.9
# name -> members; steps that the loop takes with each of three networks; steps of the others
CASES = {
    "mlp 16": (64, 60, 40),
    "mlp 64": (64, 60, 20),
    "mlp 256": (32, 30, 6),
    "cnn 8x8": (32, 20, 4),
    "cnn 28x28": (16, 6, 2),
}
CONTENDERS = ("loop", "vmap", "jax", "fleet")


def network(case: str) -> Any:
    from torch import nn

    kind, size = case.split()
    if kind == "mlp":
        w = int(size)
        hidden = [nn.Linear(64, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(w, 10))
    side = int(size.split("x")[0])
    first = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(16 * (side // 4) ** 2, 10))


def examples(case: str, device: str) -> tuple[Any, Any]:
    import torch

    from phenoscope import data

    if case != "cnn 28x28":
        x, y = data.digits(train=EXAMPLES, generator=0).train
    else:
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(EXAMPLES, 1, 28, 28, generator=draw)
        y = torch.randint(10, (EXAMPLES,), generator=draw)
    return x.to(device), y.to(device)


def loop(case: str, device: str) -> Callable[[], int]:
    """The loop that everyone writes."""
    import torch
    from torch.nn import functional

    x, y = examples(case, device)
    steps = CASES[case][1]

    def one() -> None:
        model = network(case).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        losses, taken = [], 0
        while True:
            for rows in torch.randperm(EXAMPLES, device=device).split(BATCH):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x[rows]), y[rows])
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                taken += 1
                if taken == steps:
                    return

    def run() -> int:
        for _ in range(3):
            one()
        return 3 * steps

    return run


def vmapped(case: str, device: str) -> Callable[[], int]:
    """`vmap` of the gradient of a functional call, and an update of the stacked parameters."""
    import torch
    from torch.func import functional_call, grad_and_value, stack_module_state, vmap
    from torch.nn import functional

    x, y = examples(case, device)
    members, _, steps = CASES[case]
    template = network(case).to(device)

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        return functional.cross_entropy(functional_call(template, parameters, (x,)), y)

    step = vmap(grad_and_value(loss))
    parameters, _ = stack_module_state([network(case).to(device) for _ in range(members)])
    parameters = {name: value.detach() for name, value in parameters.items()}
    moments = {name: torch.zeros_like(value) for name, value in parameters.items()}

    def run() -> int:
        losses, taken = [], 0
        while True:
            order = torch.stack([torch.randperm(EXAMPLES) for _ in range(members)]).to(device)
            for rows in order.split(BATCH, 1):
                gradients, values = step(parameters, x[rows], y[rows])
                for name, gradient in gradients.items():
                    moments[name].mul_(MOMENTUM).add_(gradient)
                    parameters[name].sub_(moments[name], alpha=RATE)
                losses.append(values)
                taken += 1
                if taken == steps:
                    return steps * members

    return run


def jaxed(case: str, device: str) -> Callable[[], int]:
    """The same in JAX, compiled whole."""
    import jax
    import numpy as np
    from jax import numpy as jnp

    x, y = (jnp.asarray(part.numpy()) for part in examples(case, "cpu"))
    x = x.reshape(len(x), -1)
    members, _, steps = CASES[case]
    w = int(case.split()[1])
    draw = np.random.default_rng(0)
    sizes = [(64, w), (w, w), (w, 10)]
    parameters = [
        (jnp.asarray(draw.normal(0, i**-0.5, (members, i, o)), jnp.float32), jnp.zeros((members, o))) for i, o in sizes
    ]
    moments = jax.tree.map(jnp.zeros_like, parameters)

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        logs = jax.nn.log_softmax(x @ parameters[-1][0] + parameters[-1][1])
        return -jnp.take_along_axis(logs, y[:, None], 1).mean()

    def one(parameters: Any, moments: Any, rows: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(parameters, x[rows], y[rows])
        moments = jax.tree.map(lambda m, g: MOMENTUM * m + g, moments, gradients)
        return jax.tree.map(lambda p, m: p - RATE * m, parameters, moments), moments, value

    step = jax.jit(jax.vmap(one), donate_argnums=(0, 1))
    state = [parameters, moments]

    def run() -> int:
        losses, taken = [], 0
        while True:
            order = np.stack([draw.permutation(EXAMPLES) for _ in range(members)])
            for start in range(0, EXAMPLES, BATCH):
                state[0], state[1], values = step(*state, order[:, start : start + BATCH])
                losses.append(values)
                taken += 1
                if taken == steps:
                    jax.block_until_ready(state)
                    return steps * members

    return run


def ours(case: str, device: str) -> Callable[[], int]:
    """`train.fleet`, from its call to its return."""
    import torch

    from phenoscope import train

    data = examples(case, device)
    members, _, steps = CASES[case]
    networks = [train.build(functools.partial(network, case), generator=seed).to(device) for seed in range(members)]
    optimizer = functools.partial(torch.optim.SGD, lr=RATE, momentum=MOMENTUM)

    def run() -> int:
        train.fleet(networks, data, steps=steps, optimizer=optimizer, batch_size=BATCH, generator=0)
        return steps * members

    return run


MAKE = {"loop": loop, "vmap": vmapped, "jax": jaxed, "fleet": ours}


def work(contender: str, case: str, threads: int, device: str) -> None:
    """A contender's process: at every line of input, one turn and its two times a network-step."""
    import torch

    torch.set_num_threads(threads)
    run = MAKE[contender](case, device)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        synchronize()
        start, cpu = time.perf_counter(), time.process_time()
        taken = run()
        synchronize()
        print(1e6 * (time.perf_counter() - start) / taken, 1e6 * (time.process_time() - cpu) / taken, flush=True)


class Contender:
    """A process that waits for its turn."""

    def __init__(self, name: str, case: str, threads: int, device: str) -> None:
        command = [sys.executable, __file__, "--work", name, "--cases", case]
        command += ["--threads", str(threads), "--device", device]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",  # one that waits for its turn must not spin
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}",
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        self.process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
        self.times: list[float] = []
        self.busy: list[float] = []
        if self._line() != "ready":
            raise RuntimeError(f"{name} did not start on {case}")

    def _line(self) -> str:
        return self.process.stdout.readline().strip()

    def turn(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for kept, value in zip((self.times, self.busy), self._line().split(), strict=True):
            kept.append(float(value))

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def check(device: str) -> float:
    """How far a member of a fleet is from the same trained alone, after 100 steps: relative, of the worst tensor."""
    import torch

    from phenoscope import train

    data, make = examples("mlp 64", device), functools.partial(network, "mlp 64")
    optimizer = functools.partial(torch.optim.SGD, lr=RATE, momentum=MOMENTUM)
    settings: dict[str, Any] = {"steps": 100, "optimizer": optimizer, "batch_size": BATCH}
    member = train.fleet(make, data, members=3, generator=[0, 1, 2], device=device, **settings)[1]
    alone = train.build(make, generator=1).to(device)
    train.fit(alone, data, generator=1, **settings)
    pairs = zip(member.parameters(), alone.parameters(), strict=True)
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


def measure(case: str, threads: int, device: str, rounds: int) -> dict[str, Any]:
    names = [
        name
        for name in CONTENDERS
        if name != "jax" or (case.startswith("mlp") and device == "cpu" and find_spec("jax") is not None)
    ]
    contenders = {name: Contender(name, case, threads, device) for name in names}
    for _ in range(rounds):
        for name in random.sample(names, len(names)):
            contenders[name].turn()
    for contender in contenders.values():
        contender.end()
    row: dict[str, Any] = {"case": case, "members": CASES[case][0]}
    for kind, times in (("clock", lambda each: each.times), ("processor", lambda each: each.busy)):
        row[kind] = {name: statistics.median(times(each)) for name, each in contenders.items()}
        for name in names[:-1]:
            pairs = zip(times(contenders[name]), times(contenders["fleet"]), strict=True)
            row[f"{kind}: fleet against {name}"] = statistics.median(a / b for a, b in pairs)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.cases[0], arguments.threads, arguments.device)
        return
    import torch

    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "batch": BATCH,
        "relative difference from fit after 100 steps": check(arguments.device),
    }
    load = [os.getloadavg()[0]]
    rows = []
    for case in arguments.cases:
        rows.append(measure(case, arguments.threads, arguments.device, arguments.rounds))
        load.append(os.getloadavg()[0])
    result |= {"load average from to": [min(load), max(load)], "rows": rows}
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(*(f"{name}: {value}" for name, value in result.items() if name != "rows"), sep="\n")
    for kind in ("clock", "processor"):
        heads = "".join(f"{name:>9}" for name in CONTENDERS)
        print(f"\n{'microseconds, ' + kind:28}{'members':>8}{heads}  fleet times as fast as")
        for row in rows:
            times = [row[kind].get(name) for name in CONTENDERS]
            cells = "".join(f"{'-' if value is None else f'{value:.1f}':>9}" for value in times)
            start = f"{kind}: fleet against "
            ratios = [f"{key.removeprefix(start)} {value:.1f}" for key, value in row.items() if key.startswith(start)]
            print(f"{row['case']:28}{row['members']:8}{cells}  {', '.join(ratios)}")


if __name__ == "__main__":
    main()
