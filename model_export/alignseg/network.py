"""AlignSeg whole: backbone, AlignCM at the top, AlignFA from coarse to fine and back to stride 4."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from model_export.alignseg import efficientnet_lite
from model_export.alignseg.align_cm import AlignCM, PlainCM
from model_export.alignseg.align_fa import AlignFA, NormLeakyReLU, PlainFA
from model_export.alignseg.backbone import Backbone, BackboneName
from model_export.alignseg.efficientnet_lite import EfficientNetLite
from model_export.alignseg.preprocessing import IMAGENET_RGB, Normalise, Preprocessing
from model_export.alignseg.sampling import Sampling
from model_export.alignseg.slim_decoder import CHANNELS, STEPS, ConvNormReLU, SlimAlignFA, SlimCM, SlimHead, SlimRefine


@dataclass(frozen=True, slots=True)
class Architecture:
    """What must be known to build a network that a state dict fits, and to feed it."""

    backbone: BackboneName
    num_classes: int
    channels: int
    sampling: Sampling
    aux_head: bool
    preprocessing: Preprocessing
    align_fa: bool = True
    align_cm: bool = True


class Refine(nn.Module):
    """Residual refinement block: unify the channels, add a residual, norm (`RRB` in the published code)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.unify = nn.Conv2d(inputs, channels, 1, bias=False)
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 3, padding=1, bias=False),
            NormLeakyReLU(channels // 4),
            nn.Conv2d(channels // 4, channels, 3, padding=1, bias=False),
        )
        self.norm = NormLeakyReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W). Returns (N, channels, H, W)."""
        x = self.unify(x)
        out: Tensor = self.norm(x + self.residual(x))
        return out


class Head(nn.Sequential):
    """(N, channels, H, W) -> (N, num_classes, H, W) logits."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1),
            NormLeakyReLU(channels),
            nn.Dropout2d(0.1),
            nn.Conv2d(channels, num_classes, 1),
        )


class AlignSeg(nn.Module):
    """Feature-Aligned Segmentation Network (Huang et al., TPAMI 2022, arXiv 2003.00872).

    backbone: "efficientnet-lite0", "-lite1" or "-lite2", with the decoder of slim_decoder.py; "lite", "resnet18",
    "resnet50" or "resnet101", with the published one. channels: width of the decoder, a multiple of 4; 256 as
    published, 64 for the small ones. preprocessing: IMAGENET_RGB, or for an EfficientNet its own.
    sampling: see sampling.py; weights of one do not serve under the other.
    aux_head: whether the auxiliary head of training is there. align_fa, align_cm: False puts plain upsampling in the
    place of sampling at learned offsets (PlainFA, PlainCM), so that an ablation takes away alignment and nothing else.
    """

    def __init__(
        self,
        backbone: BackboneName,
        num_classes: int,
        channels: int | None = None,
        sampling: Sampling = "standard",
        aux_head: bool = True,
        preprocessing: Preprocessing | None = None,
        align_fa: bool = True,
        align_cm: bool = True,
    ) -> None:
        super().__init__()
        self.slim = backbone in efficientnet_lite.NAMES
        channels = channels or (CHANNELS if self.slim or backbone == "lite" else 256)
        preprocessing = preprocessing or (efficientnet_lite.PREPROCESSING if self.slim else IMAGENET_RGB)
        self.architecture = Architecture(
            backbone, num_classes, channels, sampling, aux_head, preprocessing, align_fa, align_cm
        )
        self.normalise = Normalise(preprocessing)
        self.aux_head: nn.Module | None
        self.align_cm: AlignCM | PlainCM | SlimCM
        self.backbone: Backbone | EfficientNetLite
        self.head: nn.Sequential
        (self._build_slim if self.slim else self._build_published)(self.architecture)

    def _build_published(self, a: Architecture) -> None:
        self.backbone = Backbone(a.backbone)
        features = self.backbone.channels[3]
        self.align_cm = AlignCM(features, a.channels, a.sampling) if a.align_cm else PlainCM(features, a.channels)
        # Number n works on the backbone's stage n; 5 is AlignCM's context. "a" refines before AlignFA, "b" after it.
        inputs = [*self.backbone.channels, a.channels]
        self.refine_a = nn.ModuleDict({str(n): Refine(inputs[n - 1], a.channels) for n in (1, 2, 3, 4, 5)})
        self.align_fa = nn.ModuleDict(
            {str(n): AlignFA(a.channels, a.sampling) if a.align_fa else PlainFA() for n in (2, 3, 4, 5)}
        )
        self.refine_b = nn.ModuleDict({str(n): Refine(a.channels, a.channels) for n in (2, 3, 4, 5)})
        self.head = Head(a.channels, a.num_classes)
        self.aux_head = Head(a.channels, a.num_classes) if a.aux_head else None

    def _build_slim(self, a: Architecture) -> None:
        """The same parts under the same names; number n works on the backbone's map n."""
        self.backbone = EfficientNetLite(a.backbone)
        self.align_cm = SlimCM(self.backbone.channels[3], a.channels, a.sampling, a.align_cm)
        self.refine_a = nn.ModuleDict({n: ConvNormReLU(self.backbone.channels[int(n) - 1], a.channels) for n in STEPS})
        self.align_fa = nn.ModuleDict(
            {n: SlimAlignFA(a.channels, a.sampling) if a.align_fa else PlainFA() for n in STEPS}
        )
        self.refine_b = nn.ModuleDict({n: SlimRefine(a.channels) for n in STEPS})
        self.head = SlimHead(a.channels, a.num_classes)
        self.aux_head = SlimHead(a.channels, a.num_classes) if a.aux_head else None

    @classmethod
    def from_architecture(cls, a: Architecture) -> Self:
        """Build an untrained network."""
        return cls(
            a.backbone, a.num_classes, a.channels, a.sampling, a.aux_head, a.preprocessing, a.align_fa, a.align_cm
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W) float, normalised by `self.normalise`. Returns (N, num_classes, ~H/4, ~W/4) logits."""
        logits: Tensor = self.head(self._decode(x)[1])
        return logits

    def forward_with_aux(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For training: (logits, auxiliary logits), both (N, num_classes, ~H/4, ~W/4).

        Raises ValueError if the network was built with aux_head=False.
        """
        if self.aux_head is None:
            raise ValueError("this network has no auxiliary head; build it with aux_head=True")
        d3, d5 = self._decode(x)
        return self.head(d5), self.aux_head(d3)

    def _decode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the auxiliary head reads, and what the head reads, at 1/4; both (N, channels, ...)."""
        return self._decode_slim(self.backbone(x)) if self.slim else self._decode_published(self.backbone(x))

    def _decode_published(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        x1, x2, x3, x4 = maps  # [1/4, 1/8, 1/16, 1/32]
        d1 = self.refine_a["1"](x1)  # 1/4, as all that follow: each AlignFA brings its coarse map to the fine one
        d2 = self._aggregate("2", d1, x2)
        d3 = self._aggregate("3", d2, x3)
        d4 = self._aggregate("4", d3, x4)
        d5 = self._aggregate("5", d4, self.align_cm(x4))
        return d3, d5

    def _aggregate(self, n: str, fine: Tensor, coarse: Tensor) -> Tensor:
        aligned = self.align_fa[n](fine, self.refine_a[n](coarse))
        out: Tensor = self.refine_b[n](aligned)
        return out

    def _decode_slim(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """From 1/32 to 1/4; the auxiliary head reads the map at 1/8."""
        decoded = [self.align_cm(maps[3])]
        for n in STEPS:
            low = self.refine_a[n](maps[int(n) - 1])
            decoded.append(self.refine_b[n](self.align_fa[n](low, decoded[-1])))
        return decoded[-2], decoded[-1]
