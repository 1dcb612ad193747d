"""A plain PyTorch loop with a recorder in it: scikit-learn's digits, what was found, and a page with the figures.

    python examples/plain_pytorch.py [--steps 600] [--every 10] [--output runs/plain]

The loop is one that anybody would write; two lines of it are Phenoscope's. With the defaults, and one seed, 97.7 % of
the held-out digits are right; the share of weights that move falls from 84 to 17 % in the first convolution and from 58
to 5 % in the last layer. Ten seconds of processor time.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d, relu
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import Recorder, open_run
from phenoscope.data import digits
from phenoscope.record import Run, ablate, least_evolved, redundant, settling
from phenoscope.report import run_report
from phenoscope.train import accuracy


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.conv1(x))
        x = max_pool2d(relu(self.conv2(x)), 2)
        x = max_pool2d(relu(self.conv3(x)), 2)
        return self.head(x.flatten(1))


def fit(model: nn.Module, loader: DataLoader, *, steps: int, every: int, path: Path) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with Recorder(model, path, optimizer=optimizer, every=every, overwrite=True) as recorder:  # the first line
        made = 0
        while made < steps:
            for x, y in loader:
                if made == steps:
                    break
                loss = cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                recorder.log(loss=loss)  # the second, which may be left out
                made += 1


def show(run: Run, model: nn.Module, test: tuple[Tensor, Tensor]) -> None:
    """Which layers moved when, and what the filters are worth that moved least."""
    changed = run.means["changed"]
    third = max(len(changed) // 3, 1)
    print("\nShare of the weights that moved by more than tau between two records, first and last third of the run:")
    settled = settling(run)["settled"] if len(run.steps) >= 5 else None  # a running median needs five records
    for layer in run:
        first, last = (float(part.sel(layer=layer).mean()) for part in (changed[:third], changed[-third:]))
        at = float("nan") if settled is None else float(settled.sel(layer=layer))
        said = "did not settle" if at != at else f"settled at update {at:.0f}"
        print(f"  {layer:6} {run.layers[layer].kind:8} {first:6.1%} {last:6.1%}   {said}")

    idle = redundant(run)
    print(f"\n{sum(map(len, idle.values()))} of {sum(map(len, run.layers.values()))} filters never learned anything")
    convolutions = [layer for layer in run if run.layers[layer].kind == "Conv2d"]
    table = ablate(
        model, least_evolved(run, 0.25).only(convolutions), partial(accuracy, data=test), repeats=20, generator=0
    )
    print("Zeroing a quarter of a layer's filters, points of held-out accuracy lost (mean of 20 random choices):")
    for layer in convolutions:
        at = table.sel(layer=layer)
        print(
            f"  {layer:6} those that moved least {100 * float(at['drop']):6.2f}   "
            f"random ones {100 * float(at['random_mean']):6.2f}"
        )


def main(arguments: list[str] | None = None) -> Run:
    """Train and record, print what was found, write the page; the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="updates")
    parser.add_argument("--every", type=int, default=10, help="updates between records")
    parser.add_argument("--output", type=Path, default=Path("runs/plain"), help="where to record")
    options = parser.parse_args(arguments)
    if options.steps < options.every:
        parser.error("--steps must be at least --every, so that there is a record")

    torch.set_num_threads(1)  # tensors this small are slower on several
    torch.manual_seed(0)
    split = digits(generator=0)
    loader = DataLoader(TensorDataset(*split.train), batch_size=64, shuffle=True, drop_last=True)
    model = Network()
    fit(model, loader, steps=options.steps, every=options.every, path=options.output)

    run = open_run(options.output)
    print(f"{options.steps} updates: {accuracy(model, split.test):.1%} of the held-out digits right")
    print(run)
    show(run, model, split.test)
    image = split.test[0][0]  # the report shows what the first layer makes of it
    page = run_report(run, options.output.parent / f"{options.output.name}-report", image=image)
    print(f"\nPages with figures: {page}")
    return run


if __name__ == "__main__":
    main()
