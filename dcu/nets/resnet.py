"""The networks that the source paper compares: ResNets on images, and cResNets on latents.

He et al., arXiv 1512.03385; Torfason et al., arXiv 1803.06131. A cResNet is a ResNet without its stem and without the
blocks at 1/4 of the image's size: a latent of 1/8 enters where the ResNet has come to 1/8. Parameters have the names
of torchvision's ResNet, so that checkpoints of that layout fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcu.nets import MOST_BLOCKS
from dcu.nets.rgb import MEAN as INPUT_MEAN
from dcu.nets.rgb import SPREAD as INPUT_SPREAD

EXPANSION = 4
"""Channels at the end of a bottleneck over those inside."""
STAGES = 4
FIRST_PLANES = 64
"""Channels inside the bottlenecks of the first stage, at width 1; twice as many in each further one."""
LATENT_STAGE = 1
"""The first stage of a cResNet, at 1/8 of the image's size."""
RATES = (6, 12, 18, 24)
"""Dilations of atrous spatial pyramid pooling (Chen et al., arXiv 1606.00915)."""
FINER = 2
"""Logits of a dilated network are enlarged so many times: from 1/8 to 1/4 of the image's size."""
MEAN, SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of each channel of an image in 0..255; torchvision's networks expect (x - mean) / spread."""
MOST_WIDTH = 2.0

StrideIn = Literal["3x3", "1x1"]
"""The convolution of a bottleneck that reduces the resolution: 3x3 as in torchvision, 1x1 as in the papers."""
Name = Literal["resnet50", "resnet71", "cresnet39", "cresnet51", "cresnet72"]
DilatedName = Literal["resnet50-d", "resnet71-d", "cresnet39-d", "cresnet51-d", "cresnet72-d"]
"""The same for segmentation. The numbers count layers, as in the papers."""


class Shape(NamedTuple):
    """What differs between networks: blocks of each stage, input channels, channels inside the first bottlenecks."""

    blocks: tuple[int, ...]
    channels: int = 3
    planes: int = FIRST_PLANES
    stride_in: StrideIn = "3x3"

    @property
    def reads_latents(self) -> bool:
        """Whether it has no first stage."""
        return not self.blocks[0]

    @property
    def first(self) -> int:
        """The first stage."""
        return LATENT_STAGE if self.reads_latents else 0


BLOCKS: dict[str, tuple[int, ...]] = {
    "resnet50": (3, 4, 6, 3),
    "resnet71": (3, 4, 13, 3),
    "cresnet39": (0, 4, 6, 3),
    "cresnet51": (0, 4, 10, 3),
    "cresnet72": (0, 4, 17, 3),
}
"""Blocks of each network's stages at 1/4, 1/8, 1/16 and 1/32 of the image's size."""


def check_input(name: str, input: str) -> None:
    """Refuse an input that a network, dilated or not, does not read; raises ValueError."""
    latent = not BLOCKS[name.removesuffix("-d")][0]
    if latent != (input == "latent"):
        raise ValueError(f"input of {name} must be {'latent' if latent else 'decoded or original'}, not {input}")


def shape_by_name(name: str, channels: int, width: float, stride_in: StrideIn) -> Shape:
    """The shape of a network, dilated or not, on latents of so many channels."""
    blocks = BLOCKS[name.removesuffix("-d")]
    return Shape(blocks, 3 if blocks[0] else channels, max(1, round(width * FIRST_PLANES)), stride_in)


def parameters(name: str, width: float) -> int:
    """About how many a network has, its last layer apart."""
    with torch.device("meta"):
        return sum(each.numel() for each in Stages(shape_by_name(name, 1, width, "3x3"), False).parameters())


class Bottleneck(nn.Module):
    """relu(shortcut(x) + conv1x1(relu(conv3x3(relu(conv1x1(x)))))), a batch norm behind each convolution.

    ``planes`` channels inside, ``EXPANSION`` times as many at the end. The stride is that of the convolution which
    ``stride_in`` names, the dilation that of the 3x3 convolution.
    """

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, stride_in: StrideIn) -> None:
        super().__init__()
        outputs, first = EXPANSION * planes, stride if stride_in == "1x1" else 1
        self.conv1 = nn.Conv2d(inputs, planes, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride // first, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(shortcut + self.bn3(self.conv3(y)))


class Stages(nn.Module):
    """All of a network but its last layer: images (B, 3, H, W) or latents (B, C, h, w) to maps (B, outputs, ., .).

    Images are (x - 127) / 128, x in 0..255, as those of the RGB network, and brought to torchvision's scale first.
    Maps are at 1/32 of the image's size; ``dilated``, at 1/8: the last two stages keep the resolution, and their 3x3
    convolutions reach as far by dilation.
    """

    def __init__(self, shape: Shape, dilated: bool) -> None:
        super().__init__()
        self.shape = shape
        inputs = shape.channels
        if not shape.reads_latents:
            inputs = shape.planes
            self.conv1 = nn.Conv2d(shape.channels, inputs, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(inputs)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        dilation = 1
        for stage in range(shape.first, STAGES):
            planes, before = shape.planes << stage, dilation
            stride = 1 if stage == shape.first else 2
            if dilated and stage > LATENT_STAGE:
                stride, dilation = 1, 2 * dilation
            blocks = [Bottleneck(inputs, planes, stride, before, shape.stride_in)]
            inputs = EXPANSION * planes
            blocks += [Bottleneck(inputs, planes, 1, dilation, shape.stride_in) for _ in range(shape.blocks[stage] - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.outputs = inputs

    @property
    def channels(self) -> int:
        """Of the input."""
        return self.shape.channels

    def initialize(self) -> None:
        """Weights to train from: those of He et al. (arXiv 1502.01852), each block the identity (arXiv 1706.02677)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def load_matching(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors that fit, such as those of torchvision's ResNet-50, by name and shape.

        Raises
        ------
        ValueError
            Those of the last stage are not among them.
        """
        own = self.state_dict()
        fitting = {name: t for name, t in tensors.items() if name in own and t.shape == own[name].shape}
        wanted = {name for name in own if name.startswith(f"layer{STAGES}.") and "num_batches" not in name}
        if missing := wanted - set(fitting):
            raise ValueError(f"{min(missing)} is missing or has another shape")
        self.load_state_dict(fitting, strict=False)

    def maps(self, x: Tensor) -> Tensor:
        """(B, outputs, ., .)."""
        if not self.shape.reads_latents:
            x = self.maxpool(F.relu(self.bn1(self.conv1(in_torchvisions_scale(x)))))
        for stage in range(self.shape.first, STAGES):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x


class ResNet(Stages):
    """Images or latents to logits (B, classes)."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, dilated=False)
        self.fc = nn.Linear(self.outputs, classes)

    @property
    def classifier(self) -> nn.Linear:
        """The last layer."""
        return self.fc

    def features(self, x: Tensor) -> Tensor:
        """The input of the last layer, (B, outputs)."""
        return self.maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


class DilatedResNet(Stages):
    """Images or latents to logits (B, classes, H/4, W/4): the sum of 3x3 convolutions with ``RATES``, enlarged."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, dilated=True)
        self.classes = classes
        self.aspp = nn.ModuleList(nn.Conv2d(self.outputs, classes, 3, 1, rate, rate) for rate in RATES)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        logits = torch.stack([branch(maps) for branch in self.aspp]).sum(0)
        return F.interpolate(logits, scale_factor=FINER, mode="bilinear", align_corners=False)


def shape_of(tensors: Mapping[str, Tensor], stride_in: StrideIn) -> Shape:
    """The shape of a network, from its weights; KeyError or ValueError if they are none."""
    ends = [f"layer{stage + 1}.{{}}.conv1.weight" for stage in range(STAGES)]
    blocks = tuple(sum(end.format(index) in tensors for index in range(MOST_BLOCKS + 1)) for end in ends)
    if not all(blocks[LATENT_STAGE:]) or max(blocks) > MOST_BLOCKS:
        raise ValueError(f"{blocks} blocks")
    first = tensors["conv1.weight"] if blocks[0] else tensors[ends[LATENT_STAGE].format(0)]
    return Shape(blocks, first.shape[1], len(tensors[ends[LATENT_STAGE].format(0)]) >> LATENT_STAGE, stride_in)


def in_torchvisions_scale(x: Tensor) -> Tensor:
    """(B, 3, H, W) of the RGB network's input as (x - mean) / spread."""
    mean, spread = (x.new_tensor(each).view(-1, 1, 1) for each in (MEAN, SPREAD))
    return (x * INPUT_SPREAD + INPUT_MEAN - mean) / spread
