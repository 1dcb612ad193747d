"""docs/benchmarks.md and the README's figures of speed, from docs/measured/; with --run, the benchmarks are run first.

python tools/benchmarks.py                     # the pages only
python tools/benchmarks.py --run               # all benchmarks, then the pages; on a machine that does nothing else
python tools/benchmarks.py --run fleet         # one of recording, fleet, empirical, kernels, watch, shapes
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "measured"
PAGE = ROOT / "docs" / "benchmarks.md"
SCRIPTS = {
    "recording": "record_overhead.py",
    "fleet": "fleet.py",
    "empirical": "empirical.py",
    "kernels": "kernels.py",
    "watch": "watch.py",
    "shapes": "shapes.py",
}
NETWORKS = {
    "mlp 16": "MLP 64-16-16-10",
    "mlp 64": "MLP 64-64-64-10",
    "mlp 256": "MLP 64-256-256-10",
    "cnn 8x8": "CNN, 8x8 images",
    "cnn 28x28": "CNN, 28x28 images",
}
LOOKS = {
    "obvious PyTorch": "the same measures in obvious PyTorch",
    "torch.save of the state": "`torch.save` of the state dict",
    "TensorBoard add_histogram": "TensorBoard `add_histogram`",
    'W&B watch(log="parameters", log_freq=1)': 'W&B `watch(log="parameters", log_freq=1)`',
    "MLflow log_metrics, file store": "MLflow `log_metrics`, file store",
    "MLflow log_metrics, SQLite": "MLflow `log_metrics`, SQLite",
}

Facts = dict[str, Any]


def main(arguments: list[str]) -> None:
    """Run what is asked for and write the pages."""
    if "--run" in arguments:
        for name in [argument for argument in arguments if not argument.startswith("--")] or list(SCRIPTS):
            keep(name)
    kept = read(KEPT)
    PAGE.write_text(page(kept), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_sections(readme.read_text(encoding="utf-8"), kept), encoding="utf-8")


def keep(name: str) -> None:
    """Run a benchmark and keep what it found."""
    from phenoscope.lab.provenance import provenance

    print(f"{name} ...", flush=True)
    command = [sys.executable, str(ROOT / "benchmarks" / SCRIPTS[name]), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    made = provenance({})
    facts = {"machine": made["machine"], "torch": made["versions"]["torch"], "date": str(made["date"])[:10]}
    found = json.loads(done.stdout[done.stdout.index("{") :])
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps({**facts, **found}, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Facts]:
    """What is kept, by benchmark."""
    files = {name: folder / f"{name}.json" for name in SCRIPTS}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def page(kept: dict[str, Facts]) -> str:
    """The page of all benchmarks."""
    titles = {
        "recording": "Recording",
        "fleet": "The fleet",
        "empirical": "Whole studies",
        "kernels": "Kernels",
        "watch": "Following a training",
        "shapes": "Drawing shapes",
    }
    made = {
        "recording": recording_in_full, "fleet": fleet, "empirical": empirical, "kernels": kernels_in_full,
        "watch": watch, "shapes": shapes,
    }  # fmt: skip
    parts = [
        "# Benchmarks\n",
        "Each is one command under `benchmarks/` that measures us beside a peer or the obvious version, interleaved in "
        "one run, and gives medians. This page is made by `python tools/benchmarks.py` from what its `--run` kept.\n",
    ]
    for name, title in titles.items():
        if name in kept:
            parts.append(f"## {title}\n\n{made[name](kept[name])}")
    return "\n".join(parts)


def with_sections(readme: str, kept: dict[str, Facts]) -> str:
    """The README with its generated sections as they follow from what is kept."""
    made = {"recording": recording, "fleet": fleet, "kernels": kernels}
    for name in made.keys() & kept.keys():
        begin, end = markers(name)
        before, found, rest = readme.partition(begin)
        _, ended, after = rest.partition(end)
        if found and ended:  # a README without the markers is left as it is
            readme = f"{before}{begin}\n\n{made[name](kept[name])}\n{end}{after}"
    return readme


def markers(name: str) -> tuple[str, str]:
    """The lines between which a generated section stands."""
    return f"<!-- {name}: begin (tools/benchmarks.py) -->", f"<!-- {name}: end -->"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def short(value: float | None) -> str:
    """A number to three digits, without an exponent."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def percent(share: float) -> str:
    """A share, to a tenth of a percent."""
    return f"{100 * share:.1f} %"


def where(found: Facts) -> str:
    """The machine and the day."""
    return f"{found['machine']}, torch {found['torch']}, {found['date']}"


def recording(found: Facts) -> str:
    """What a record costs: the short table."""
    ms, step = found["ms"], found["ms"]["training step"]
    sinks, spent = found["sinks"]["large"], found["processor ms a record"]["no sink"]
    rows = [["training step", short(step), ""]]
    millions = found["convolution weights"] / 1e6
    rows.append([f"measuring the {millions:.1f} M convolution weights", *_of(ms["phenoscope"], step)])
    rows.append(["the whole recorder in the loop", *_of(sinks["no sink"]["in the loop"], step)])
    rows.append(
        [
            "the whole recorder, processor time of all its threads over 40 records, writing and closing included",
            *_of(spent, step),
        ]
    )
    others = sorted((ms[name], text) for name, text in LOOKS.items() if name in ms)
    rows += [[text, *_of(value, step)] for value, text in others]
    return (
        f"{where(found)}; {found['model']}, every update recorded:\n\n"
        + table(["", "ms", "of a training step"], rows)
        + f"\nThe extra memory is {found['extra memory over the weights']:.2f} times that of the weights.\n"
    )


def recording_in_full(found: Facts) -> str:
    """The same with every sink, beside a large and beside a small training."""
    large, small = found["sinks"]["large"], found["sinks"]["small"]
    spent = found["processor ms a record"]
    rows = [
        [
            name,
            short(large[name]["in the loop"]),
            percent(large[name]["against alone"] - 1),
            short(spent[name]),
            short(small[name]["step"]),
            percent(small[name]["against alone"] - 1),
        ]
        for name in spent
    ]
    heads = [
        "sink",
        "in the loop, ms",
        "longer step",
        "processor, ms a record",
        "small: ms a step",
        "small: longer step",
    ]
    left = "".join(f"\nLeft out: {what}.\n" for what in found["left out"])
    return (
        recording(found)
        + "\nTensorBoard's and W&B's are histograms of the same weights, W&B offline; MLflow's are three numbers a "
        "layer that somebody else has computed. What a tracker does in threads or processes of its own is not "
        "counted there.\n"
        + f"\nWith every update recorded and each sink, beside the same training and beside a small one "
        f"({found['small model']}: {short(small['training alone']['step'])} ms an update alone):\n\n"
        + table(heads, rows)
        + "\nProcessor time counts all threads, and W&B's own process. Beside the small training a sink gets some "
        "of the records only: it may compute a fiftieth of the time, and the run on disk has all of them.\n" + left
    )


def fleet(found: Facts) -> str:
    """Microseconds a network-step of every contender."""
    names = {"loop": "plain loop", "vmap": "`vmap(grad)`", "jax": "JAX `jit(vmap(grad))`", "fleet": "fleet"}
    rows = [
        [NETWORKS[row["case"]], str(row["members"]), *(short(row["clock"].get(name)) for name in names)]
        for row in found["rows"]
    ]
    error = found["relative difference from fit after 100 steps"]
    return (
        f"{where(found)}, {found['threads']} threads; microseconds a network-step by the clock (SGD with momentum, "
        f"batch {found['batch']}, {found['rounds']} rounds):\n\n"
        + table(["network", "members", *names.values()], rows)
        + "\nA member is what `train.fit` makes of it alone (largest relative difference after 100 steps: "
        f"{error:.1e}).\n"
    )


def empirical(found: Facts) -> str:
    """The trainings of three studies: seconds in all, and microseconds a network-step case by case."""
    whole = [
        [f"`{each['study']}`", *(short(each["clock"][name]) for name in ("loop", "fleet", "ratio"))]
        for each in found["studies"]
    ]
    rows = [
        [f"`{row['study']}`, {row['case']}", str(row["members"])]
        + [short(row["clock"][name]) for name in ("loop", "fleet", "ratio")]
        for row in found["rows"]
    ]
    ways = ["plain loop", "fleet", "times as fast"]
    return (
        f"{where(found)}, {found['threads']} thread, as studies work in; networks, data, optimizers and masks are the "
        "studies' own. Seconds of all trainings of a study at its default preset, from a share of their steps:\n\n"
        + table(["study", *ways], whole)
        + f"\nMicroseconds a network-step by the clock, {found['rounds']} rounds:\n\n"
        + table(["trainings", "members", *ways], rows)
    )


def kernels(found: Facts) -> str:
    """Ours beside the peers, a line a case."""
    rows = []
    names = {
        "mlp": "infinite MLP, depth 5, 2,000 digits",
        "cnn": "infinite CNN with pooling, depth 3, 64 images of 16x16x3",
    }
    for row in found["infinite"]["rows"]:
        ours, mine = row["clock"]["seconds"]["phenoscope"], row["MiB"]["phenoscope"]
        for peer in row["clock"]["ratio"]:
            theirs, memory = row["clock"]["seconds"][peer], row["MiB"][peer]
            cells = [short(ours), short(theirs), short(theirs / ours), f"{short(mine)} / {short(memory)} MiB"]
            rows.append([f"{names[row['case']]}, {row['dtype']}: beside {peer}", *cells])
    for row in found["empirical"]["rows"]:
        time, memory = row["seconds"], [f"{value / 2**20:,.0f}" for value in map(row["bytes"].get, ("ours", "peer"))]
        cells = [short(time["ours"]), short(time["peer"]), short(time["ratio"]), " / ".join(memory) + " MiB"]
        rows.append(
            [f"tangent kernel of a 2.5 M CNN, N = {row['n']}, {row['kernel']}: beside `torch.func` contraction", *cells]
        )
    return f"{where(found)}, {found['infinite']['threads']} threads; seconds by the clock:\n\n" + table(
        ["", "ours", "peer", "times as fast", "memory, ours / peer"], rows
    )


def kernels_in_full(found: Facts) -> str:
    """The same, with the parts that have no peer but plainer versions."""
    cntk = [
        [f"{row['side']}x{row['side']}x{row['channels']}, depth {row['depth']}, {row['dtype']}"]
        + [short(row["clock"][name]) for name in ("torch", "compiled", "ratio")]
        for row in found["cntk"]["rows"]
    ]
    solved = [
        [f"`{row['contender']}`", short(row["clock"]), short(row["processor"]), short(row["matrices"])]
        for row in found["regression"]["rows"]
    ]
    return (
        kernels(found)
        + "\nMedians of rounds in which all took their turn; memory is what a process came to hold beyond what it held "
        "before. `nt.batch` is that package's way to save memory.\n"
        + "\nCNTK with global average pooling, milliseconds a pair of images:\n\n"
        + table(["images", "plain torch", "compiled", "times as fast"], cntk)
        + f"\nRegression on {found['regression']['points']:,} points, memory in kernel matrices, the given one "
        "included:\n\n" + table(["", "s", "processor s", "matrices"], solved)
    )


def watch(found: Facts) -> str:
    """What one look of each running measure takes."""
    rows = [[name, short(value), short(found["updates"].get(name))] for name, value in found["ms"].items()]
    return (
        f"{where(found)}, {found['threads']} thread; a perceptron 40-100-100-10 on MNIST-1D, batches of 64, measures "
        f"of gradients on {found['examples']} examples. Looked at every k updates, a measure adds its cost divided by "
        "k; none is on unless it is asked for.\n\n" + table(["one look", "ms", "in updates"], rows)
    )


def shapes(found: Facts) -> str:
    """Seconds for ten thousand images."""
    names = {
        "render": "`data.render`",
        "shapes": "`data.shapes`: factors drawn, rendered, standardized, split",
        "one by one": "one image after another, Pillow and NumPy",
    }
    keys = ("seconds", "processor_seconds")
    rows = [[text, *(short(found[name][key]) for key in keys)] for name, text in names.items()]
    return f"{where(found)}, one thread; 10,000 images of 32x32:\n\n" + table(["", "s", "processor s"], rows)


def _of(value: float, step: float) -> list[str]:
    return [short(value), percent(value / step)]


if __name__ == "__main__":
    main(sys.argv[1:])
