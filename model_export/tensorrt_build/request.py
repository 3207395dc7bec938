"""What to build, with every default resolved."""

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from model_export.tensorrt_build.graph import Warp
from model_export.tensorrt_build.library import Library
from model_export.tensorrt_build.precision import Precision
from model_export.tensorrt_build.quantization import EightBit
from model_export.tensorrt_build.source import Source
from model_export.tensorrt_build.target import Target
from service.model_folder.engine_plan import FOLDER, Machine, PlanProfile


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One TensorRT engine to build.

    source: the ONNX file and the model folder. target: the GPU. precision: of the layers between the normalised image
    and the logits. warp: how AlignFA and AlignCM sample. profiles: one for each bucket and batch size.
    calibration: folder of typical images, for int8 and fp8. workspace_mib: limit of scratch memory during the build.
    """

    library: Library
    source: Source
    target: Target
    precision: Precision | EightBit
    warp: Warp
    profiles: tuple[PlanProfile, ...]
    calibration: Path | None = None
    workspace_mib: int | None = None

    @property
    def folder(self) -> Path:
        """Where engines of this model lie."""
        return self.source.folder / FOLDER

    @property
    def plan(self) -> Path:
        """The engine's path."""
        return self.folder / f"{self._machine_name}-{self.precision}.plan"

    @property
    def timing_cache(self) -> Path:
        """Kernel timings of earlier builds on this GPU with this TensorRT, and the Triton that compiles its plugin."""
        compiler = f"-triton-{version('triton')}" if self.warp == "plugin" else ""
        return self.folder / f"{self._machine_name}{compiler}.timing"

    @property
    def machine(self) -> Machine:
        """The GPU and the TensorRT that the engine will run on."""
        capability = self.target.compute_capabilities[0]
        return Machine(self.target.gpu, capability, self.library.runtime, self.library.version)

    @property
    def _machine_name(self) -> str:
        gpu = re.sub(r"[^a-z0-9]+", "-", self.target.gpu.lower()).strip("-")
        return f"{gpu}-{self.library.runtime}-{self.library.version}"
