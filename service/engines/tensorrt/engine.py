"""Runs a TensorRT plan with cuda-python, without PyTorch: uint8 images in, uint8 class ids out.

An engine is one lane: a CUDA stream on which copy in, network and copy out of a batch follow each other. Two lanes of a
GPU, each called from its own batcher thread, overlap the copies of one with the network of the other. They share the
weights.

Images and class maps pass through pinned memory. Each (bucket, batch size) is captured as a CUDA graph at its first
batch, so that every later batch is one launch. A context must not change after it is captured, so each shape has its
own; the contexts of a lane share one block of scratch memory, since a lane computes one batch at a time.
"""

import logging
import math
import re
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.engines import cuda
from service.engines.confidence import confidence
from service.engines.cuda import Device, check
from service.engines.tensorrt import library
from service.engines.tensorrt.buffers import Buffers
from service.engines.tensorrt.stream import Stream
from service.errors import EngineError, EngineOutOfMemory, ManifestError
from service.model_folder import engine_plan
from service.model_folder.engine_plan import PlanInfo
from service.types import CLASS_MAP, LOGITS, PICTURES, Inference, UInt8Array

log = logging.getLogger("alignseg.engine")

_OUT_OF_MEMORY: Final = re.compile("out ?of ?memory", re.IGNORECASE)


@dataclass(eq=False, slots=True)
class _Shape:
    """The execution context of one (bucket, batch size), and its CUDA graph once captured.

    images, logits: shapes of input and output. first_done: whether a batch of this shape has run, so that no further
    one is captured.
    """

    images: tuple[int, int, int, int]
    logits: tuple[int, ...]
    context: Any
    graph: Any = None
    first_done: bool = False


class TensorRtEngine:
    """One plan on one GPU; see service.types.Engine."""

    has_confidence = True

    def __init__(
        self, plan: Path, info: PlanInfo, device: Device, share_weights_with: "TensorRtEngine | None" = None
    ) -> None:
        """Load `plan` on `device`.

        info: the plan's description. share_weights_with: another lane of the same plan on the device.
        Raises EngineUnavailable without TensorRT or cuda-python, ManifestError when the plan does not load, EngineError
        when the device has too little memory; then all memory is freed.
        """
        # Both may be installed, and neither reads the other's plans.
        self._trt, runtime = library.installed(info.runtime)
        self._cuda = cuda.load()
        self._info = info
        self._device = device
        self.name = f"{runtime.replace('_', '-')}-{info.precision}-gpu{device.index}"
        self.max_batch = max(profile.max_batch for profile in info.profiles)
        self._closed = False
        self._select_device()
        if share_weights_with is None:
            self._errors: list[str] = []
            self._runtime = self._trt.Runtime(library.logger(self._trt, log, self._errors))
            self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
            self._context_lock = threading.Lock()  # TensorRT's objects allow one thread at a time
        else:
            lane = share_weights_with
            self._errors, self._runtime = lane._errors, lane._runtime
            self._engine, self._context_lock = lane._engine, lane._context_lock
        if self._engine is None:
            reason = self._last_error()
            if _OUT_OF_MEMORY.search(reason):
                raise EngineOutOfMemory(
                    f"{self.name} can't load {plan}: {reason}. Free GPU memory; nvidia-smi lists it."
                )
            raise ManifestError(f"{self.name} can't load {plan}: {reason}. {engine_plan.rebuild(plan.parent.parent)}")
        self._context_options = library.context_options(self._trt, self._engine)
        self._stream = Stream(self._cuda)
        self._shapes: dict[tuple[int, ...], _Shape] = {}
        self._buffers = Buffers(self._cuda)
        try:
            self._allocate()
        except BaseException:
            self.close()
            raise

    def infer(self, batch: UInt8Array, with_confidence: bool = False) -> Inference:
        """Segment N images of one of the plan's buckets; see service.types.Engine."""
        if self._closed:
            raise EngineError(f"{self.name} is closed.")
        self._select_device()
        shape = self._shape(batch.shape)
        self._buffers.host(PICTURES, batch.shape)[:] = batch
        self._launch(shape)
        if with_confidence:
            self._buffers.to_host(LOGITS, math.prod(shape.logits) * 4, self._stream.handle)
        self._stream.wait(f"{self.name} on a batch of {batch.shape}")
        ids = self._buffers.host(CLASS_MAP, batch.shape[:3]).copy()  # the next batch overwrites the pinned memory
        if not with_confidence:
            return Inference(ids)
        logits = self._buffers.host(LOGITS, (math.prod(shape.logits) * 4,)).view(np.float32).reshape(shape.logits)
        return Inference(ids, confidence(logits, (batch.shape[1], batch.shape[2])))

    def warm_up(self) -> None:
        """Run each batch size of each bucket once, so that no request waits for kernels to load or for a capture.

        Closes the engine when that fails, and raises what `infer` raises.
        """
        try:
            for profile in self._info.profiles:
                for count in range(profile.min_batch, profile.max_batch + 1):
                    self.infer(np.zeros((count, *profile.bucket, 3), dtype=np.uint8))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the device's memory. Idempotent.

        The modules of plugins compiled ahead of time may stay loaded (TensorRT issue 4849, open): some GPU memory for
        each model that was replaced, until the process ends.
        """
        if self._closed:
            return
        self._closed = True
        self._cuda.cudaSetDevice(self._device.index)
        for shape in self._shapes.values():
            if shape.graph is not None:
                self._cuda.cudaGraphExecDestroy(shape.graph)
        self._shapes.clear()  # destroys the contexts, before the memory that they use
        self._context_options = self._engine = self._runtime = None
        self._buffers.free()
        self._stream.close()

    def _select_device(self) -> None:
        """Select the device for this thread: the engine is loaded in one thread and called in another."""
        check(self._cuda, self._cuda.cudaSetDevice(self._device.index), f"selecting GPU {self._device.index}")

    def _allocate(self) -> None:
        """Allocate the memory for every batch of the plan now, so that no later batch runs out of it."""
        pixels = max(p.max_batch * math.prod(p.bucket) for p in self._info.profiles)
        self._buffers.pinned(PICTURES, pixels * 3)
        self._buffers.pinned(CLASS_MAP, pixels)
        largest = [self._shape((p.max_batch, *p.bucket, 3)) for p in self._info.profiles]
        self._buffers.pinned(LOGITS, max(math.prod(shape.logits) for shape in largest) * 4)
        scratch = (self._engine.get_device_memory_size_for_profile_v2(i) for i in range(len(self._info.profiles)))
        self._scratch = self._buffers.on_device("scratch", max(scratch))

    def _last_error(self) -> str:
        """TensorRT's calls only return failure; the reason goes to its logger."""
        return self._errors.pop() if self._errors else "TensorRT logged no reason"

    def _failure(self, what: str) -> EngineError:
        """The error to raise, with TensorRT's reason."""
        reason = self._last_error()
        error = EngineOutOfMemory if _OUT_OF_MEMORY.search(reason) else EngineError
        return error(f"{self.name} {what}: {reason}")

    def _shape(self, images: tuple[int, ...]) -> _Shape:
        """The context and graph for a batch of this shape, created at its first batch."""
        shape = self._shapes.get(images)
        if shape is None:
            count, height, width, _ = images
            with self._context_lock:
                shape = self._shapes[images] = self._new_shape((count, height, width, 3))
        return shape

    def _new_shape(self, images: tuple[int, int, int, int]) -> _Shape:
        context = self._new_context(self._profile(images))
        if not context.set_input_shape(PICTURES, images):
            raise self._failure(f"does not accept the input shape {images}")
        return _Shape(images, tuple(context.get_tensor_shape(LOGITS)), context)

    def _profile(self, images: tuple[int, int, int, int]) -> int:
        """Index of the profile for this shape. Raises EngineError when there is none."""
        for index, profile in enumerate(self._info.profiles):
            if profile.bucket == images[1:3] and profile.min_batch <= images[0] <= profile.max_batch:
                return index
        known = sorted({profile.bucket for profile in self._info.profiles})
        raise EngineError(
            f"{self.name} has no profile for {images}; it was built for {known}, batches up to {self.max_batch}. "
            "Build it with --bucket HEIGHTxWIDTH and --batch N."
        )

    def _new_context(self, profile: int) -> Any:
        """An execution context that uses the lane's scratch memory."""
        context = self._engine.create_execution_context(self._context_options)
        if context is None or not context.set_optimization_profile_async(profile, int(self._stream.handle)):
            raise self._failure(f"can't create an execution context for profile {profile}")
        self._stream.wait("selecting a profile")
        return context

    def _launch(self, shape: _Shape) -> None:
        """Queue copy in, network and copy out: as one graph if it is captured, else call by call."""
        if shape.graph is not None:
            self._stream.launch(shape.graph, f"{self.name} launching a graph")
            return
        if not shape.first_done:
            self._bind(shape)
        try:
            self._enqueue(shape)
        except EngineError as error:
            self._stream.require_device(error)
            raise
        if shape.first_done:  # the capture failed
            return
        shape.first_done = True  # TensorRT defers work to the first call, so a later one is captured
        shape.graph = self._stream.capture(partial(self._enqueue, shape), f"{self.name}: batches of {shape.images}")

    def _bind(self, shape: _Shape) -> None:
        shape.context.set_device_memory(self._scratch, self._buffers.size("scratch"))
        for name in (PICTURES, CLASS_MAP, LOGITS):
            if not shape.context.set_tensor_address(name, self._buffers.device(name)):
                raise self._failure(f"does not accept the address of {name}")

    def _enqueue(self, shape: _Shape) -> None:
        pixels = math.prod(shape.images[:3])
        self._buffers.to_device(PICTURES, pixels * 3, self._stream.handle)
        if not shape.context.execute_async_v3(int(self._stream.handle)):
            raise self._failure(f"failed on a batch of {shape.images}")
        self._buffers.to_host(CLASS_MAP, pixels, self._stream.handle)
