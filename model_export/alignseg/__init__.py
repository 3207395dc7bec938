"""The network, a file a module. Reading order: preprocessing, backbone, sampling, align_fa, align_cm, network."""

from model_export.alignseg.network import AlignSeg, Architecture
from model_export.alignseg.preprocessing import IMAGENET_RGB, PUBLISHED_BGR, Preprocessing

__all__ = ["IMAGENET_RGB", "PUBLISHED_BGR", "AlignSeg", "Architecture", "Preprocessing"]
