"""ResNet with the deep stem, undilated: four maps at 1/4, 1/8, 1/16 and 1/32 (He et al. 2016; stem of PSPNet)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from model_export.alignseg.efficientnet_lite import EfficientNetName

ResNetName = Literal["lite", "resnet18", "resnet50", "resnet101"]
BackboneName = ResNetName | EfficientNetName


class ConvNormReLU(nn.Sequential):
    """3x3 or 1x1 convolution without bias, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the stride is on the first."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNormReLU(inputs, planes, 3, stride), conv_norm(planes, planes, 3))
        self.shortcut = _shortcut(inputs, planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, planes * expansion, H / stride, W / stride), rounded up."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the stride is on the 3x3."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormReLU(inputs, planes, 1), ConvNormReLU(planes, planes, 3, stride), conv_norm(planes, 4 * planes, 1)
        )
        self.shortcut = _shortcut(inputs, 4 * planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, planes * expansion, H / stride, W / stride), rounded up."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 and inputs == outputs else conv_norm(inputs, outputs, 1, stride)


@dataclass(frozen=True, slots=True)
class _Plan:
    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]
    width: int  # planes of the first stage; each later stage doubles them


PLANS: dict[str, _Plan] = {
    "lite": _Plan(BasicBlock, (2, 2, 2, 2), 32),
    "resnet18": _Plan(BasicBlock, (2, 2, 2, 2), 64),
    "resnet50": _Plan(Bottleneck, (3, 4, 6, 3), 64),
    "resnet101": _Plan(Bottleneck, (3, 4, 23, 3), 64),
}


class Backbone(nn.Module):
    """channels: the four maps' channel counts, [1/4, 1/8, 1/16, 1/32]."""

    def __init__(self, name: BackboneName) -> None:
        super().__init__()
        if name not in PLANS:
            raise ValueError(f"unknown backbone {name!r}; expected one of {', '.join(PLANS)}")
        plan = PLANS[name]
        width = plan.width
        self.stem = nn.Sequential(
            ConvNormReLU(3, width, 3, 2), ConvNormReLU(width, width), ConvNormReLU(width, 2 * width)
        )
        # ceil_mode as published: of 2k+1 rows the last is kept, so that every map covers the whole picture.
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.stages = nn.ModuleList()
        inputs = 2 * width
        self.channels: list[int] = []
        for index, blocks in enumerate(plan.blocks):
            planes, stride = width << index, 1 if index == 0 else 2
            outputs = planes * plan.block.expansion
            rest = (plan.block(outputs, planes, 1) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(plan.block(inputs, planes, stride), *rest))
            self.channels.append(outputs)
            inputs = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (N, 3, H, W) float. Returns four maps at [1/4, 1/8, 1/16, 1/32] with `channels` channels."""
        x = self.pool(self.stem(x))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
