"""Data sets, and data in the forms that every function takes."""

from .adapters import from_loader, from_torchvision, load
from .batches import as_tensors, batches
from .digits import digits
from .digits_tinted import tinted_digits
from .drawn.cues import Conflict, add_tag, cue_conflict
from .drawn.outlines import OUTLINES, outline
from .drawn.patterns import PATTERNS, pattern
from .drawn.render import BACKGROUNDS, Factors, render
from .drawn.shapes import Scenes, shapes
from .drawn.textures import texture
from .geometry import Separation, separation
from .mnist1d import mnist1d
from .noise import label_noise, randomize
from .photos import patches, photos
from .split import Split
from .synthetic.bits import Bits, hypercube, icosahedral_bits
from .synthetic.gaussian import gaussian_mixture, separable, sphere
from .synthetic.teacher import Teacher, teacher
from .synthetic.trajectory import trajectory
from .transform.augment import color, compose, crop, spatial
from .transform.deficit import deficit
from .transform.warp import warp

__all__ = [
    "BACKGROUNDS",
    "OUTLINES",
    "PATTERNS",
    "Bits",
    "Conflict",
    "Factors",
    "Scenes",
    "Separation",
    "Split",
    "Teacher",
    "add_tag",
    "as_tensors",
    "batches",
    "color",
    "compose",
    "crop",
    "cue_conflict",
    "deficit",
    "digits",
    "from_loader",
    "from_torchvision",
    "gaussian_mixture",
    "hypercube",
    "icosahedral_bits",
    "label_noise",
    "load",
    "mnist1d",
    "outline",
    "patches",
    "pattern",
    "photos",
    "randomize",
    "render",
    "separable",
    "separation",
    "shapes",
    "spatial",
    "sphere",
    "teacher",
    "texture",
    "tinted_digits",
    "trajectory",
    "warp",
]
