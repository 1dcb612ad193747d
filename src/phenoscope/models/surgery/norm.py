"""Take trained batch normalization out of a network."""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ...core.errors import InputError

Module = TypeVar("Module", bound=nn.Module)


def fold_norm(model: Module) -> Module:
    """The same function without batch normalization: a copy in which it is part of the layers before it.

    In evaluation mode batch normalization is a scale and a shift for each channel, which the weights and the bias of a
    convolution or linear layer before it can hold. Every normalization right behind such a layer in an
    `nn.Sequential` is folded and an `nn.Identity` put in its place, so that all names stay.

    Args:
        model: a trained network; not changed.

    Returns:
        A copy, in evaluation mode.

    Raises:
        InputError: no batch normalization in such a place.
    """
    folded = copy.deepcopy(model).eval()
    count = 0
    for chain in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        names = list(chain._modules)
        for before, name in itertools.pairwise(names):
            layer, norm = chain._modules[before], chain._modules[name]
            if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) or norm.running_mean is None:
                continue
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                chain._modules[before] = fuse_conv_bn_eval(layer, norm)
            elif isinstance(layer, nn.Linear):
                chain._modules[before] = fuse_linear_bn_eval(layer, norm)
            else:
                continue
            chain._modules[name] = nn.Identity()
            count += 1
    if not count:
        raise InputError("no batch normalization stands right behind a linear or convolutional layer of a Sequential")
    return folded
