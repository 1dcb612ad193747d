"""Randomness that the caller controls: a generator, an integer seed, or torch's own."""

import torch


def seeded(generator: torch.Generator | int | None, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator to draw from.

    Args:
        generator: a `torch.Generator` is returned as it is; an integer seeds a new one; `None` seeds a new one from
            torch's global state, so that `torch.manual_seed` governs it.
        device: where a new generator lives.
    """
    if isinstance(generator, torch.Generator):
        return generator
    seed = int(torch.randint(2**62, ()).item()) if generator is None else int(generator)
    return torch.Generator(device).manual_seed(seed)


def child_seeds(generator: torch.Generator | int | None, n: int) -> list[int]:
    """`n` seeds drawn from a generator, for work that is divided: members of a fleet, repetitions, workers."""
    generator = seeded(generator)
    return torch.randint(2**62, (n,), generator=generator, device=generator.device).tolist()
