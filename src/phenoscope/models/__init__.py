"""Reference networks."""

from .resnet import RESNET50_OBSERVED, resnet
from .vgg import VGG16_OBSERVED, vgg

__all__ = ["RESNET50_OBSERVED", "VGG16_OBSERVED", "resnet", "vgg"]
