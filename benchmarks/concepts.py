"""What tau, `every` and the learning-rate schedule do to the measures: one network, recorded in many ways at once.

    python benchmarks/concepts.py [--updates 500] [--seeds 3] [--write]

A small convolutional network learns scikit-learn's digits with Adam and with SGD, over several seeds. A recorder
changes nothing in a training, so that several of them, which differ in tau and `every` alone, watch the same updates:
whatever differs between their figures is the recording's doing. Then all is recorded alike, and the learning rate stays
constant or falls, on right labels and on partly wrong ones. Prints tables in Markdown; `--write` keeps them in
docs/measured/concepts.md, which the documentation shows.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from phenoscope import Recorder, data, open_run, train
from phenoscope.models import cnn
from phenoscope.record import Run, settling

KEPT = Path(__file__).parents[1] / "docs" / "measured" / "concepts.md"
BATCH, REDUNDANT, QUIET = 64, 0.95, 0.05
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "Adam": (torch.optim.Adam, 1e-3),
    "SGD with momentum": (functools.partial(torch.optim.SGD, momentum=0.9), 5e-2),
}
SCHEDULES: dict[str, Callable[[int], Callable[[int], float] | None]] = {
    "constant": lambda updates: None,
    "cosine": train.cosine,
    "steps": lambda updates: train.step_decay(updates, at=(0.5, 0.75), factor=0.1),
}
EVERY = (1, 10, 50)
TAUS = (None, 1e-2, 1e-3, 1e-4)  # None: the default, the initial learning rate
NOISE = (0.0, 0.2)  # shares of wrong labels: nothing is left to learn soon, and something is to the end
COMMON = (10, 1e-3)  # how the schedules are recorded: every, tau


class Seen(NamedTuple):
    """What one recorder saw of one training; first and last are means over a tenth of the run."""

    lowest: float  # changed share of the first layer, mean over the run
    highest: float  # of the last
    redundant: float  # share of all filters whose mean idle share is at least 0.95
    first: float  # changed share, mean over the layers
    last: float
    first_pace: float  # how far an entry moved over the sum of the learning rates of the window
    last_pace: float
    settled: float  # the update from which the changed share of every layer stays under 0.05; NaN: not within the run


Way = tuple[int, float | None]  # every, tau


def main(arguments: list[str] | None = None) -> str:
    """Train, record, print; the Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {'/'.join(KEPT.parts[-3:])}")
    options = parser.parse_args(arguments)
    if options.updates < max(EVERY):
        parser.error(f"--updates must be at least {max(EVERY)}, the longest stretch between two records")
    torch.set_num_threads(1)  # tensors this small are slower on several
    rates = " and ".join(f"{name} at {rate:g}" for name, (_, rate) in OPTIMIZERS.items())
    text = f"""\
<!-- --8<-- [start:ways] -->
{ways(options.updates, options.seeds)}
<!-- --8<-- [end:ways] -->

<!-- --8<-- [start:schedules] -->
{schedules(options.updates, options.seeds)}
<!-- --8<-- [end:schedules] -->

<!-- --8<-- [start:facts] -->
Three convolutions and a linear layer; {rates}; batches of {BATCH}, {options.updates} updates.
Figures are means over {options.seeds} seeds, with the lowest and the highest in parentheses where they differ.
Measured with torch {torch.__version__} on {date.today():%d %B %Y}.
<!-- --8<-- [end:facts] -->
"""
    print(text)
    if options.write:
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        KEPT.write_text(text, encoding="utf-8")
    return text


def ways(updates: int, seeds: int) -> str:
    """One row for every optimizer, `every` and tau, at a constant learning rate."""
    lines = [
        "| optimizer | every | tau | changed share, first layer | changed share, last layer "
        "| filters that `redundant` would name |",
        "|---|---|---|---|---|---|",
    ]
    for name, (_, rate) in OPTIMIZERS.items():
        taus = sorted({tau or rate for tau in TAUS}, reverse=True)
        pairs = [(every, None if tau == rate else tau) for every in EVERY for tau in taus]
        found = [trained(name, "constant", pairs, updates=updates, seed=seed)[0] for seed in range(seeds)]
        for every, tau in pairs:
            each = [one[every, tau] for one in found]
            columns = (shares(getattr(one, key) for one in each) for key in ("lowest", "highest", "redundant"))
            said = f"{tau:g}" if tau else f"{rate:g} (default)"
            lines.append(f"| {name} | {every} | {said} | {' | '.join(columns)} |")
    return "\n".join(lines)


def schedules(updates: int, seeds: int) -> str:
    """One row for every share of wrong labels, optimizer and schedule, all recorded in the same way."""
    lines = [
        "| labels | optimizer | schedule | changed share, first tenth | last tenth "
        "| movement by rate, first tenth | last tenth | all layers below 5 % from update | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for noise in NOISE:
        for name in OPTIMIZERS:
            for schedule in SCHEDULES:
                found = [
                    trained(name, schedule, [COMMON], updates=updates, seed=seed, noise=noise) for seed in range(seeds)
                ]
                each = [one[COMMON] for one, _ in found]
                columns = [
                    *(shares(getattr(one, key) for one in each) for key in ("first", "last")),
                    *(spread((getattr(one, key) for one in each), "{:.2g}") for key in ("first_pace", "last_pace")),
                    spread((one.settled for one in each), "{:.0f}"),
                    shares(accuracy for _, accuracy in found),
                ]
                said = f"{100 * noise:.0f} % wrong" if noise else "right"
                lines.append(f"| {said} | {name} | {schedule} | {' | '.join(columns)} |")
    return "\n".join(lines)


def trained(
    optimizer: str, schedule: str, pairs: Sequence[Way], *, updates: int, seed: int, noise: float = 0.0
) -> tuple[dict[Way, Seen], float]:
    """One training with a recorder for every pair of `every` and tau, and the accuracy on the held-out digits."""
    split = data.digits(generator=seed)
    x, y = split.train
    if noise:
        y, _ = data.label_noise(y, noise, classes=10, generator=seed)
    model = cnn((1, 8, 8), 10, width=(16, 32, 32), pool=(1, 2, 2), generator=seed)
    make, rate = OPTIMIZERS[optimizer]
    stepped = make(model.parameters(), lr=rate)
    factor = SCHEDULES[schedule](updates)
    rates = np.array([rate * (factor(update) if factor else 1.0) for update in range(updates)])
    with tempfile.TemporaryDirectory() as folder:
        paths = {pair: Path(folder) / str(number) for number, pair in enumerate(pairs)}
        with ExitStack() as recorders:
            for (every, tau), path in paths.items():
                recorders.enter_context(
                    Recorder(model, path, optimizer=stepped, every=every, threshold=tau, final=False)
                )
            train.fit(
                model, (x, y), steps=updates, optimizer=stepped, batch_size=BATCH, schedule=factor, generator=seed
            )
        return {pair: seen(open_run(path), rates) for pair, path in paths.items()}, train.accuracy(model, split.test)


def seen(run: Run, rates: np.ndarray) -> Seen:
    """The figures of one run whose updates had these learning rates."""
    changed = run.means["changed"].to_numpy()
    tenth = max(len(changed) // 10, 1)
    idle = np.concatenate([run.average(name)["idle"].to_numpy() for name in run])
    moved = np.sqrt(run.means["distance_per_weight"].to_numpy()).mean(1)  # of an entry, root mean square of a layer
    every = run.metadata["every"]
    pace = moved / rates[: len(moved) * every].reshape(-1, every).sum(1)
    return Seen(
        lowest=changed[:, 0].mean(),
        highest=changed[:, -1].mean(),
        redundant=(idle >= REDUNDANT).mean(),
        first=changed[:tenth].mean(),
        last=changed[-tenth:].mean(),
        first_pace=pace[:tenth].mean(),
        last_pace=pace[-tenth:].mean(),
        settled=float(settling(run, threshold=QUIET)["below"][-1]) if len(changed) >= 5 else np.nan,
    )


def shares(values: Iterable[float]) -> str:
    return spread((100 * value for value in values), "{:.1f}") + " %"


def spread(values: Iterable[float], form: str) -> str:
    """The mean and, where it shows, from the lowest to the highest; a value that some seed lacks is said to be so."""
    numbers = np.array(list(values))
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return "none"
    low, high = form.format(known.min()), form.format(known.max())
    said = low if low == high else f"{form.format(known.mean())} ({low} to {high})"
    return said if len(known) == len(numbers) else f"{said}, in {len(known)} of {len(numbers)} seeds"


if __name__ == "__main__":
    main()
