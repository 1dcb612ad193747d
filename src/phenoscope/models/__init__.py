"""Reference networks, and what is done to the structure of a network."""

from .attention import LinearAttention
from .cnn import cnn, cnn1d
from .gapnet import gapnet
from .init.gaussian import init_gaussian
from .init.orthogonal import init_orthogonal
from .mlp import deep_linear, end_to_end, mlp
from .ntk import NTKConv2d, NTKLinear
from .recurrent import gru
from .resnet import RESNET50_OBSERVED, resnet
from .surgery.blocks import blocks, split_at
from .surgery.norm import fold_norm
from .vgg import VGG16_OBSERVED, vgg
from .vit import vit

__all__ = [
    "RESNET50_OBSERVED",
    "VGG16_OBSERVED",
    "LinearAttention",
    "NTKConv2d",
    "NTKLinear",
    "blocks",
    "cnn",
    "cnn1d",
    "deep_linear",
    "end_to_end",
    "fold_norm",
    "gapnet",
    "gru",
    "init_gaussian",
    "init_orthogonal",
    "mlp",
    "resnet",
    "split_at",
    "vgg",
    "vit",
]
