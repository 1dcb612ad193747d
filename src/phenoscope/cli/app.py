"""The commands: what they are called and take, and how errors end. What they do is in the files beside this one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..core.errors import InputError

app = typer.Typer(
    name="phenoscope",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print the facts as one JSON object instead.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")]
Model = Annotated[str | None, typer.Option("--model", metavar="PKG:BUILD", help="A function that builds the network.")]
Repeats = Annotated[int, typer.Option(min=1, help="Random draws that zeroing is compared with.")]
Folders = Annotated[
    list[Path] | None, typer.Option("--results", help="Folders of results. [default: results, docs/results]")
]
Results = Annotated[Path, typer.Option(help="The folder of results.")]
Seed = Annotated[int, typer.Option(help="What all random choices derive from.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"phenoscope {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """See how neural networks learn: record how every filter of a network evolves while it trains."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the runs and the report go.")] = Path(
        "runs/demo"
    ),
    full_width: Annotated[
        bool, typer.Option("--full-width", help="Networks at the paper's width, not a quarter.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of both networks. [default: VGG 12, ResNet 8]")
    ] = None,
    repeats: Repeats = 20,
    device: Device = "cpu",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train VGG-16 and ResNet-50 on real digits, record, ablate and slim them, and write a report."""
    from .demo import demo as run

    run(output, full_width=full_width, epochs=epochs, repeats=repeats, device=device, seed=seed, json=json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of recorded runs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the pages go.")] = Path("report"),
    image: Annotated[Path | None, typer.Option(help="An image whose first-layer feature maps are shown.")] = None,
    json: Json = False,
) -> None:
    """Write self-contained pages on recorded runs."""
    from .runs import report as run

    run(runs, output, image=image, json=json)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a recorded run.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="That of another run of the same architecture.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the page goes.")] = Path("diff"),
    threshold: Annotated[float, typer.Option(help="The changed share under which a layer has settled.")] = 0.05,
    window: Annotated[int, typer.Option(help="Records of the running median, an odd number.")] = 5,
    json: Json = False,
) -> None:
    """Compare two runs layer by layer: what changed where, and when each layer settled."""
    from .runs import diff as run

    run(first, second, output, threshold=threshold, window=window, json=json)


@app.command()
def evolve(
    checkpoints: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of checkpoints.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the new run.")],
    threshold: Annotated[float, typer.Option(help="Tau: the movement above which an entry counts as changed.")],
    model: Model = None,
    order: Annotated[
        str, typer.Option(help="By `step`, `name` or `time`, or a file that lists the checkpoints.")
    ] = "step",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without checkpoints that cannot be used.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    json: Json = False,
) -> None:
    """Compute the measures from saved checkpoints instead of while training."""
    from .runs import evolve as run

    run(
        checkpoints,
        output,
        threshold=threshold,
        model=model,
        order=order,
        skip_bad=skip_bad,
        overwrite=overwrite,
        json=json,
    )


@app.command()
def ablate(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a recorded run.")],
    model: Annotated[str, typer.Option(metavar="PKG:BUILD", help="A function that builds the network.")],
    data: Annotated[
        str, typer.Option(metavar="PKG:LOAD", help="A function that gives held-out data: (x, y), a loader or a Split.")
    ],
    checkpoint: Annotated[Path | None, typer.Option(help="Weights to ablate. [default: the run's final state]")] = None,
    epsilon: Annotated[
        float, typer.Option(help="A filter is redundant if its mean idle share is at least 1 - epsilon.")
    ] = 0.05,
    share: Annotated[float, typer.Option(help="Share of least-evolved filters of each layer, ablated as well.")] = 0.25,
    repeats: Repeats = 20,
    layers: Annotated[
        list[str] | None, typer.Option(help="Only layers that match this pattern; may be given again.")
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Zero the filters that never learned, cut them out, and measure what that costs."""
    from .runs import ablate as run

    run(
        path,
        model=model,
        data=data,
        checkpoint=checkpoint,
        epsilon=epsilon,
        share=share,
        repeats=repeats,
        patterns=layers,
        device=device,
        seed=seed,
        json=json,
    )


@app.command("list")
def list_command(
    section: Annotated[str | None, typer.Option(help="Only this section: theory, empirical, robustness ...")] = None,
    status: Annotated[str | None, typer.Option(help="Only these: specified, ready (can be run) or run.")] = None,
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """List the papers of the catalogue, and what is known of each."""
    from .studies import list_entries

    list_entries(section, status, results, json=json)


@app.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="An entry's id, as `list` gives it.")],
    results: Results = Path("results"),
    json: Json = False,
) -> None:
    """Show a paper of the catalogue: its claims, its study's parameters, its last result."""
    from .studies import show_entry

    show_entry(id, results, json=json)


@app.command("run")
def run_command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Studies, as `list` names them.")] = None,
    section: Annotated[str | None, typer.Option(help="All studies of a section.")] = None,
    all: Annotated[bool, typer.Option("--all", help="All studies.")] = False,
    preset: Annotated[str, typer.Option(help="smoke (5 s, not judged), default (a minute) or gpu.")] = "default",
    seed: Seed = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter; may be given again.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="PKG:BUILD", help="Your own network's factory.")] = None,
    data: Annotated[str | None, typer.Option(metavar="PKG:LOAD", help="Your own data.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes at once. [default: one a core]")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray on a cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster: auto, or host:port.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore what is kept from earlier runs.")] = False,
    results: Results = Path("results"),
    device: Annotated[str | None, typer.Option(help="Where to train. [default: cpu; cuda for the gpu preset]")] = None,
    json: Json = False,
) -> None:
    """Run studies: the experiment, the verdict on each registered claim, the figure."""
    from .experiments import run_studies

    status = run_studies(
        ids or [],
        section=section,
        all=all,
        preset=preset,
        seed=seed,
        settings=settings or [],
        model=model,
        data=data,
        jobs=jobs,
        engine=engine,
        address=address,
        fresh=fresh,
        results=results,
        device=device,
        json=json,
    )
    raise typer.Exit(status)


@app.command()
def gallery(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the site goes.")] = Path("site"),
    results: Folders = None,
    runs: Annotated[list[Path] | None, typer.Option(help="Recorded runs, or folders of them.")] = None,
    json: Json = False,
) -> None:
    """Build a static site: every paper, its verdicts, its figure."""
    from .pages import gallery as build

    build(results or [], runs or [], output, json=json)


@app.command()
def serve(
    results: Folders = None,
    runs: Annotated[list[Path] | None, typer.Option(help="Where recorded runs lie. [default: runs]")] = None,
    host: Annotated[str, typer.Option(help="Whom to listen to; other machines too with 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
) -> None:
    """Show the gallery and recorded runs in the browser, live while studies and recorders run."""
    from .pages import serve as start

    start(results or [], runs or [], host, port)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what is installed, what works, and what to do about the rest."""
    from .doctor import doctor as examine

    raise typer.Exit(examine(json=json))


def main(arguments: list[str] | None = None) -> None:
    """The entry point: wrong input ends with one line and status 2, a failing disk with 1, an interruption with 130."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None) -> int:
    """Run one command and give its exit status."""
    command: Any = typer.main.get_command(app)
    try:
        arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
        status = int(command.main(args=arguments, prog_name="phenoscope", standalone_mode=False) or 0)
    except InputError as error:
        return _wrong(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except OSError as error:
        print(f"phenoscope: failed: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command line itself
            return _wrong(str(error.format_message()) + " (see phenoscope --help)")
        raise
    if status == 130:
        print("phenoscope: interrupted; what was finished is kept", file=sys.stderr)
    return status


def _wrong(message: str) -> int:
    print("phenoscope: " + " ".join(message.split()), file=sys.stderr)
    return 2
