"""TensorRT by cuda-python, without PyTorch: uint8 pictures in, uint8 class ids out.

An engine is one lane: a stream, on which copy in, network and copy out of one batch follow each other. Two lanes of a
GPU, each with a thread of the batcher, overlap one's copies with the other's network; they share the weights.

Pictures and class maps pass through pinned memory; each (bucket, batch size) is captured as a CUDA graph when it is
first met, so from then on a batch is one launch. A context must not change once it is captured, so each has its own;
those of a lane share one block of scratch memory, since it computes one batch at a time.
"""

import logging
import math
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.engines import cuda as cuda_runtime
from service.engines.confidence import confidence
from service.engines.cuda import Device, check
from service.engines.tensorrt import library
from service.engines.tensorrt.buffers import Buffers
from service.errors import DeviceLost, EngineError, EngineOutOfMemory, ManifestError
from service.model_folder.engine_plan import PlanInfo
from service.types import CLASS_MAP, LOGITS, PICTURES, Inference, UInt8Array

log = logging.getLogger("alignseg.engine")

_NO_MEMORY: Final = re.compile("out ?of ?memory", re.IGNORECASE)


@dataclass(eq=False, slots=True)
class _Shape:
    """All that is kept for one (bucket, batch size): its execution context, and its graph once captured."""

    pictures: tuple[int, int, int, int]
    logits: tuple[int, ...]
    context: Any
    graph: Any = None
    met: bool = False


class TensorRtEngine:
    """One plan on one GPU."""

    has_confidence = True

    def __init__(self, plan: Path, info: PlanInfo, device: Device, beside: "TensorRtEngine | None" = None) -> None:
        """Load `plan` on `device`. beside: another lane of the same plan there, whose weights this one shares.

        Raises EngineUnavailable without TensorRT or cuda-python, ManifestError when the plan does not load, EngineError
        when the device has no room for it; all memory is given back then.
        """
        self._trt, runtime = library.installed(
            info.runtime
        )  # both may be installed, and neither reads the other's plans
        self._cuda = cuda = cuda_runtime.load()
        self._info = info
        self._device = device
        self.name = f"{runtime.replace('_', '-')}-{info.precision}-gpu{device.index}"
        self.max_batch = max(profile.max_batch for profile in info.profiles)
        self._closed = False
        self._on_device()
        if beside is None:
            self._errors: list[str] = []
            self._runtime = self._trt.Runtime(library.logger(self._trt, log, self._errors))
            self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
            self._making = threading.Lock()  # TensorRT's objects are not to be called by two threads at a time
        else:
            self._errors, self._runtime = beside._errors, beside._runtime
            self._engine, self._making = beside._engine, beside._making
        if self._engine is None:
            raise ManifestError(f"{self.name} can't load {plan}: {self._why()}. Build it again.")
        self._how = library.context_options(self._trt, self._engine)
        self._stream = check(cuda, cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking), "creating a stream")
        self._shapes: dict[tuple[int, ...], _Shape] = {}
        self._buffers = Buffers(cuda)
        try:
            self._allocate()
        except BaseException:
            self.close()
            raise

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N pictures; see contracts.Engine. The pictures are of a bucket of the plan."""
        if self._closed:
            raise EngineError(f"{self.name} is closed.")
        self._on_device()
        shape = self._shape(batch.shape)
        self._buffers.host(PICTURES, batch.shape)[:] = batch
        self._launch(shape)
        if with_confidence:
            self._buffers.to_host(LOGITS, math.prod(shape.logits) * 4, self._stream)
        check(self._cuda, self._cuda.cudaStreamSynchronize(self._stream), f"{self.name} on a batch of {batch.shape}")
        ids = self._buffers.host(CLASS_MAP, batch.shape[:3]).copy()  # the next batch overwrites the pinned memory
        if not with_confidence:
            return Inference(ids)
        logits = self._buffers.host(LOGITS, (math.prod(shape.logits) * 4,)).view(np.float32).reshape(shape.logits)
        return Inference(ids, confidence(logits, (batch.shape[1], batch.shape[2])))

    def close(self) -> None:
        """Release the device's memory. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._cuda.cudaSetDevice(self._device.index)
        for shape in self._shapes.values():
            if shape.graph is not None:
                self._cuda.cudaGraphExecDestroy(shape.graph)
        self._shapes.clear()  # and the contexts with them, before the memory that they use
        self._how = self._engine = self._runtime = None
        self._buffers.free()
        self._cuda.cudaStreamDestroy(self._stream)

    def _on_device(self) -> None:
        """Contexts of CUDA are current to a thread; the engine is loaded in one and called in another."""
        check(self._cuda, self._cuda.cudaSetDevice(self._device.index), f"choosing GPU {self._device.index}")

    def _allocate(self) -> None:
        """All memory that any batch of the plan can need, now: what fits at the start fits later."""
        pixels = max(p.max_batch * math.prod(p.bucket) for p in self._info.profiles)
        self._buffers.pinned(PICTURES, pixels * 3)
        self._buffers.pinned(CLASS_MAP, pixels)
        largest = [self._shape((p.max_batch, *p.bucket, 3)) for p in self._info.profiles]
        self._buffers.pinned(LOGITS, max(math.prod(shape.logits) for shape in largest) * 4)
        scratch = (self._engine.get_device_memory_size_for_profile_v2(i) for i in range(len(self._info.profiles)))
        self._scratch = self._buffers.on_device("scratch", max(scratch))

    def _why(self) -> str:
        """TensorRT's calls only say that they failed; why, they tell its logger."""
        return self._errors.pop() if self._errors else "TensorRT does not say why"

    def _failure(self, what: str) -> EngineError:
        """The error to raise, with TensorRT's own words."""
        why = self._why()
        return (EngineOutOfMemory if _NO_MEMORY.search(why) else EngineError)(f"{self.name} {what}: {why}")

    def _shape(self, pictures: tuple[int, ...]) -> _Shape:
        """What belongs to a batch of this shape, made when it is first met."""
        shape = self._shapes.get(pictures)
        if shape is None:
            count, height, width, _ = pictures
            with self._making:
                shape = self._shapes[pictures] = self._new_shape((count, height, width, 3))
        return shape

    def _new_shape(self, pictures: tuple[int, int, int, int]) -> _Shape:
        context = self._context(self._profile(pictures))
        if not context.set_input_shape(PICTURES, pictures):
            raise self._failure(f"does not take {pictures}")
        return _Shape(pictures, tuple(context.get_tensor_shape(LOGITS)), context)

    def _profile(self, pictures: tuple[int, int, int, int]) -> int:
        """Index of the profile that takes this shape. Raises EngineError when none does."""
        for index, profile in enumerate(self._info.profiles):
            if profile.bucket == pictures[1:3] and profile.min_batch <= pictures[0] <= profile.max_batch:
                return index
        known = sorted({profile.bucket for profile in self._info.profiles})
        raise EngineError(
            f"{self.name} has no profile for {pictures}; it was built for {known}, batches up to {self.max_batch}. "
            "Build it with --bucket HEIGHTxWIDTH and --batch N."
        )

    def _context(self, profile: int) -> Any:
        """An execution context without scratch memory of its own."""
        context = self._engine.create_execution_context(self._how)
        if context is None or not context.set_optimization_profile_async(profile, int(self._stream)):
            raise self._failure(f"has no execution context for profile {profile}")
        check(self._cuda, self._cuda.cudaStreamSynchronize(self._stream), "choosing a profile")
        return context

    def _launch(self, shape: _Shape) -> None:
        """Queue copy, network and copy: as a graph once there is one, call by call the first time."""
        if shape.graph is not None:
            check(self._cuda, self._cuda.cudaGraphLaunch(shape.graph, self._stream), f"{self.name} launching a graph")
            return
        if not shape.met:
            self._bind(shape)
        self._enqueue(shape)
        if (
            not shape.met
        ):  # TensorRT does what it puts off to the first call in that call, so only the second is captured
            shape.met = True
            shape.graph = self._capture(shape)

    def _bind(self, shape: _Shape) -> None:
        shape.context.set_device_memory(self._scratch, self._buffers.size("scratch"))
        for name in (PICTURES, CLASS_MAP, LOGITS):
            if not shape.context.set_tensor_address(name, self._buffers.device(name)):
                raise self._failure(f"takes no memory for {name}")

    def _enqueue(self, shape: _Shape) -> None:
        pixels = math.prod(shape.pictures[:3])
        self._buffers.to_device(PICTURES, pixels * 3, self._stream)
        if not shape.context.execute_async_v3(int(self._stream)):
            check(self._cuda, self._cuda.cudaGetLastError(), f"{self.name} on a batch of {shape.pictures}")
            raise self._failure(f"failed on a batch of {shape.pictures}")
        self._buffers.to_host(CLASS_MAP, pixels, self._stream)

    def _capture(self, shape: _Shape) -> Any:
        """The batch as one graph; None, once and for all, where TensorRT can't be captured."""
        cuda, stream = self._cuda, self._stream
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cuda, cuda.cudaStreamBeginCapture(stream, mode), "starting a capture")
        graph = None
        try:
            self._enqueue(shape)
            graph = check(cuda, cuda.cudaStreamEndCapture(stream), "ending a capture")
            return check(cuda, cuda.cudaGraphInstantiate(graph, 0), "instantiating a graph")
        except DeviceLost:
            raise
        except EngineError as error:
            if graph is None:
                cuda.cudaStreamEndCapture(stream)  # where it has ended already, this does nothing
            cuda.cudaGetLastError()  # an invalidated capture is no error of the device
            log.warning("%s: no CUDA graph for %s: %s", self.name, shape.pictures, error)
            return None
        finally:
            if graph is not None:
                cuda.cudaGraphDestroy(graph)
