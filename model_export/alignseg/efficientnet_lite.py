"""EfficientNet-Lite as a backbone: four maps at 1/4, 1/8, 1/16 and 1/32.

EfficientNet (Tan & Le, ICML 2019) is the network of MobileNetV2's inverted residuals that its table 1 lists, widened
and deepened by two factors. The Lite variants (TensorFlow TPU models, efficientnet/lite) are made for integer
arithmetic: no squeeze-and-excitation, ReLU6 in place of swish, and the stem, the first and the last stage keep their
size. Padding is TensorFlow's SAME, the norms' epsilon 1e-3. The classifier's 1280 channels are left out.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal, get_args

from torch import Tensor, nn

from model_export.alignseg.preprocessing import Preprocessing
from model_export.alignseg.same_padding import SameConv2d

EfficientNetName = Literal["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]
NAMES: tuple[EfficientNetName, ...] = get_args(EfficientNetName)
EPSILON = 1e-3

# The input that the ImageNet weights were trained with.
PREPROCESSING = Preprocessing("RGB", mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))

# Width and depth factor: the compound coefficients of the Lite variants.
FACTORS: dict[str, tuple[float, float]] = {
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}


@dataclass(frozen=True, slots=True)
class _Stage:
    """One row of the paper's table 1; the stride is the first block's."""

    channels: int
    blocks: int
    kernel: int
    stride: int
    expansion: int = 6


STEM = 32
_TABLE = (
    _Stage(16, 1, 3, 1, expansion=1),  # 1/2
    _Stage(24, 2, 3, 2),  # 1/4
    _Stage(40, 2, 5, 2),  # 1/8
    _Stage(80, 3, 3, 2),  # 1/16
    _Stage(112, 3, 5, 1),
    _Stage(192, 4, 5, 2),  # 1/32
    _Stage(320, 1, 3, 1),
)
MAPS = (1, 2, 4, 6)
"""The stages whose results are the four maps: the last of each resolution."""


def plan(name: str) -> list[_Stage]:
    """The seven stages, scaled: channels to the nearest multiple of 8, blocks rounded up."""
    width, depth = FACTORS[name]
    last = len(_TABLE) - 1
    return [
        _Stage(
            _round_channels(stage.channels * width),
            stage.blocks if index in (0, last) else ceil(stage.blocks * depth),
            stage.kernel,
            stage.stride,
            stage.expansion,
        )
        for index, stage in enumerate(_TABLE)
    ]


def _round_channels(channels: float) -> int:
    """To the nearest multiple of 8, but not more than a tenth down."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class ConvNormReLU6(nn.Sequential):
    """SAME convolution without bias, norm, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        conv = SameConv2d(inputs, outputs, kernel, stride, groups)
        super().__init__(conv, nn.BatchNorm2d(outputs, EPSILON), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection without activation; a shortcut where the shape is kept."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = ConvNormReLU6(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNormReLU6(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Sequential(SameConv2d(inner, outputs, 1), nn.BatchNorm2d(outputs, EPSILON))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, outputs, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.shortcut else out


class EfficientNetLite(nn.Module):
    """channels: the four maps' channel counts, [1/4, 1/8, 1/16, 1/32]; Lite0 has 24, 40, 112 and 320."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in FACTORS:
            raise ValueError(f"no backbone {name!r}; there are {', '.join(NAMES)}")
        self.stem = ConvNormReLU6(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        inputs, stages = STEM, plan(name)
        for stage in stages:
            first = InvertedResidual(inputs, stage.channels, stage.kernel, stage.stride, stage.expansion)
            rest = (
                InvertedResidual(stage.channels, stage.channels, stage.kernel, 1, stage.expansion)
                for _ in range(stage.blocks - 1)
            )
            self.stages.append(nn.Sequential(first, *rest))
            inputs = stage.channels
        self.channels = [stages[index].channels for index in MAPS]

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (N, 3, H, W) float, (RGB - 127) / 128. Returns four maps at [1/4, 1/8, 1/16, 1/32]."""
        x = self.stem(x)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in MAPS:
                maps.append(x)
        return maps
