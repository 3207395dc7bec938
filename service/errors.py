"""Every error a user of the service can meet.

AlignSegError
├── ManifestError              the model folder is missing, damaged or not ours
├── EngineError                the runtime failed on a batch
│   ├── EngineOutOfMemory      ... for want of memory: a smaller batch may pass
│   └── EngineLost             ... for good (sticky device error): the process must end
├── EngineUnavailable          the runtime asked for is not installed or has no device
└── RequestError               has an HTTP status and an RFC 9457 problem type
    ├── BadRequest             400  malformed request or parameter
    ├── UnsupportedMediaType   415  a body that is neither a form nor a picture
    ├── NotAnImage             415  the bytes are no picture of a format we read
    ├── DamagedImage           400  a picture that ends early or does not decode
    ├── TooManyBytes           413
    ├── TooManyPixels          413
    ├── NotAcceptable          406  no media type that the client accepts
    ├── QueueFull              429  with Retry-After
    ├── NotReady               503  loading, draining or broken, with Retry-After
    ├── DeadlineExceeded       504
    └── InferenceFailed        500  the engine failed on this picture
"""

from typing import ClassVar


class AlignSegError(Exception):
    """Base of all errors raised on purpose. The message says what was got, what is expected and how to mend it."""


class ManifestError(AlignSegError):
    """The model folder is missing, damaged, or not one this version can read."""


class EngineError(AlignSegError):
    """The runtime failed on a batch."""


class EngineOutOfMemory(EngineError):
    """The runtime ran out of memory; a smaller batch may pass."""


class EngineLost(EngineError):
    """The device does not answer any more; only a new process helps."""


class EngineUnavailable(AlignSegError):
    """The runtime asked for is not installed, or its device is missing."""


class RequestError(AlignSegError):
    """An error that is answered to the client as application/problem+json (RFC 9457)."""

    status: ClassVar[int] = 400
    slug: ClassVar[str] = "bad-request"
    title: ClassVar[str] = "Bad request"
    retry_after_s: float | None = None


class BadRequest(RequestError):
    """400: a malformed request or parameter."""


class UnsupportedMediaType(RequestError):
    """415: the request's head says that its body is neither a form nor a picture."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class NotAnImage(RequestError):
    """415: the bytes are not a picture of a format that is read."""

    status = 415
    slug = "not-an-image"
    title = "Not a picture of a supported format"


class DamagedImage(RequestError):
    """400: the picture is truncated or does not decode."""

    slug = "damaged-image"
    title = "The picture is damaged"


class TooManyBytes(RequestError):
    """413: the body is larger than ALIGNSEG_MAX_BODY_BYTES."""

    status = 413
    slug = "too-many-bytes"
    title = "The body is too large"


class TooManyPixels(RequestError):
    """413: the picture has more pixels than ALIGNSEG_MAX_PIXELS."""

    status = 413
    slug = "too-many-pixels"
    title = "The picture has too many pixels"


class NotAcceptable(RequestError):
    """406: none of the media types in Accept can be made."""

    status = 406
    slug = "not-acceptable"
    title = "No acceptable media type"


class QueueFull(RequestError):
    """429: no room; `retry_after_s` says when it is worth coming back."""

    status = 429
    slug = "queue-full"
    title = "The server is at capacity"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(RequestError):
    """503: the server is loading, draining or broken."""

    status = 503
    slug = "not-ready"
    title = "The server is not ready"

    def __init__(self, message: str, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestError):
    """504: the request's deadline passed before its result was there."""

    status = 504
    slug = "deadline-exceeded"
    title = "The deadline has passed"


class InferenceFailed(RequestError):
    """500: the engine failed on this picture."""

    status = 500
    slug = "inference-failed"
    title = "Inference failed"
