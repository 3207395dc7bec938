"""A CUDA stream: waiting for it without keeping a core busy, and capturing its work as a CUDA graph."""

import logging
from collections.abc import Callable
from typing import Any

from service.engines.cuda import check
from service.errors import DeviceLost, EngineError

log = logging.getLogger("alignseg.engine")


class Stream:
    """A stream of the selected device. handle: for calls that queue work."""

    def __init__(self, cuda: Any) -> None:
        """Raises EngineError when the device gives none."""
        self._cuda = cuda
        self.handle = check(cuda, cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking), "creating a stream")
        # Waiting for a stream would keep a core busy; waiting for such an event lets the thread sleep.
        flags = cuda.cudaEventBlockingSync | cuda.cudaEventDisableTiming
        self._done = check(cuda, cuda.cudaEventCreateWithFlags(flags), "creating an event")

    def wait(self, action: str) -> None:
        """Sleep until all queued work is done. action: what it does, for messages. Raises what `check` raises."""
        check(self._cuda, self._cuda.cudaEventRecord(self._done, self.handle), action)
        check(self._cuda, self._cuda.cudaEventSynchronize(self._done), action)

    def require_device(self, error: EngineError) -> None:
        """Raise DeviceLost if `error` came from a lost device.

        TensorRT has a CUDA runtime of its own, whose last error this one does not see; a wait shows the device's.
        """
        try:
            self.wait(str(error))
        except DeviceLost:
            raise
        except EngineError:
            return

    def launch(self, graph: Any, action: str) -> None:
        """Queue a captured graph."""
        check(self._cuda, self._cuda.cudaGraphLaunch(graph, self.handle), action)

    def capture(self, enqueue: Callable[[], None], what: str) -> Any:
        """The work that `enqueue` queues as an executable graph; None, and a warning, when it can't be captured.

        what: its name, for the warning. Raises DeviceLost.
        """
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cuda, cuda.cudaStreamBeginCapture(self.handle, mode), "starting a capture")
        graph = None
        try:
            enqueue()
            graph = check(cuda, cuda.cudaStreamEndCapture(self.handle), "ending a capture")
            return check(cuda, cuda.cudaGraphInstantiate(graph, 0), "instantiating a graph")
        except DeviceLost:
            raise
        except EngineError as error:
            if graph is None:
                cuda.cudaStreamEndCapture(self.handle)  # does nothing if the capture has ended
            cuda.cudaGetLastError()  # clears the error of the invalid capture
            self.require_device(error)
            log.warning("%s run without a CUDA graph: %s", what, error)
            return None
        finally:
            if graph is not None:
                cuda.cudaGraphDestroy(graph)

    def close(self) -> None:
        """Destroy the stream. Raises no errors: the process may be ending because of one."""
        self._cuda.cudaEventDestroy(self._done)
        self._cuda.cudaStreamDestroy(self.handle)
