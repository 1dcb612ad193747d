"""A GAN recorded: two networks, two optimizers, a run each, side by side on one page.

A generator and a discriminator of the DCGAN kind (Radford, Metz and Chintala, ICLR 2016) learn scikit-learn's digits,
8x8 pixels. Each optimizer has its own recorder; the loop is otherwise the usual one. Printed is how much of each
network still moves while they play against each other, and the pages show it layer by layer.

With the defaults no layer of either settles: of the generator's weights 80 to 86 % move by more than the learning rate
from record to record, in the last third of the training as in the first, and of the discriminator's 87 to 83 % in the
first third and 73 to 75 % in the last, in which it was right about 83 % of the images. One seed, half a minute of
processor time. It is the same recording in which a classifier's share falls to a few per cent (`plain_pytorch.py`): a
game between two networks has no loss that runs out.

    python examples/gan.py [--steps 1500] [--every 10] [--output runs/gan]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import pad

from phenoscope import Recorder, open_run
from phenoscope.data import digits
from phenoscope.record import Run, settling
from phenoscope.report import run_report

LATENT, BATCH, RATE, BETAS = 32, 64, 2e-4, (0.5, 0.999)  # rate and betas as in the paper


def generator() -> nn.Module:
    """Latent numbers to images in [-1, 1]: 1x1, 2x2, 4x4, 8x8."""
    return nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)),
        *(nn.ConvTranspose2d(LATENT, 64, 2, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1), nn.Tanh()),
    )


def discriminator() -> nn.Module:
    """Images to one logit: above 0 for "real"."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(64, 1, 2), nn.Flatten()),
    )


def play(g: nn.Module, d: nn.Module, images: Tensor, *, steps: int, every: int, output: Path) -> None:
    """Train both in turn, one update each at a step, recorded as `generator` and `discriminator`."""
    optimize_g, optimize_d = (torch.optim.Adam(net.parameters(), lr=RATE, betas=BETAS) for net in (g, d))
    with (
        Recorder(g, output / "generator", optimizer=optimize_g, every=every, overwrite=True) as record_g,
        Recorder(d, output / "discriminator", optimizer=optimize_d, every=every, overwrite=True) as record_d,
    ):
        for _ in range(steps):
            real = images[torch.randint(len(images), (BATCH,))]
            fake = g(torch.randn(BATCH, LATENT))

            on_real, on_fake = d(real), d(fake.detach())
            loss_d = bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake))
            optimize_d.zero_grad()
            loss_d.backward()
            optimize_d.step()
            right = torch.cat([on_real > 0, on_fake <= 0]).float().mean()
            record_d.log(loss=loss_d, right=right)

            judged = d(fake)
            loss_g = bce(judged, torch.ones_like(judged))
            optimize_g.zero_grad()
            loss_g.backward()  # leaves gradients in d, too; they are dropped before its next update
            optimize_g.step()
            record_g.log(loss=loss_g)


def show(runs: dict[str, Run]) -> None:
    """How much of each network moves, by thirds of the training, and whether its layers settle."""
    print(f"{'share of the weights that move':34}{'first third':>12}{'second':>10}{'last':>10}   settled at update")
    for name, run in runs.items():
        changed = run.means["changed"]
        settled = settling(run)["settled"] if len(run.steps) >= 5 else None  # a running median needs five records
        for layer in run:
            thirds = [float(np.nanmean(part)) for part in np.array_split(changed.sel(layer=layer).values, 3)]
            at = float("nan") if settled is None else float(settled.sel(layer=layer))
            said = "-" if at != at else f"{at:.0f}"
            print(f"{name:14}{layer:>3} {run.layers[layer].kind:16}" + "".join(f"{x:10.1%}" for x in thirds), said)


@torch.no_grad()
def sheet(g: nn.Module, images: Tensor, file: Path) -> None:
    """Eight rows of drawn digits above two of real ones, as a PNG."""
    drawn = torch.cat([g.eval()(torch.randn(128, LATENT)), images[:32]])
    drawn = pad(drawn.view(10, 16, 8, 8), (1, 1, 1, 1)).transpose(1, 2).reshape(100, 160)  # a frame around each
    pixels = ((drawn + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    Image.fromarray(pixels).resize((640, 400), Image.Resampling.NEAREST).save(file)


def main(arguments: list[str] | None = None) -> dict[str, Run]:
    """Train, print, write the pages and the drawn digits; the runs by name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="updates of each network")
    parser.add_argument("--every", type=int, default=10, help="updates between records")
    parser.add_argument("--output", type=Path, default=Path("runs/gan"), help="where to record")
    options = parser.parse_args(arguments)
    if options.steps < 3 * options.every:
        parser.error("--steps must be at least three times --every, so that there is a record in every third")

    torch.set_num_threads(1)  # tensors this small are slower on several
    torch.manual_seed(0)
    images = 2 * digits(scale="unit", generator=0).train[0] - 1
    g, d = generator(), discriminator()
    play(g, d, images, steps=options.steps, every=options.every, output=options.output)

    runs = {name: open_run(options.output / name) for name in ("generator", "discriminator")}
    show(runs)
    right = np.array_split(runs["discriminator"].scalars["right"].values, 3)[-1].mean()
    print(f"In the last third the discriminator was right about {right:.0%} of the images.")
    sheet(g, images, options.output / "digits.png")
    page = run_report(list(runs.values()), options.output / "report")
    print(f"Pages with figures: {page}; what the generator draws: {options.output / 'digits.png'}")
    return runs


if __name__ == "__main__":
    main()
