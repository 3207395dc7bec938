"""Every error a user of the service can meet.

AlignSegError
├── SettingsError              an ALIGNSEG_* variable can't be honoured
├── ManifestError              the model folder is missing, damaged or not ours
├── EngineError                the runtime failed on a batch
│   ├── EngineOutOfMemory      ... for want of memory: a smaller batch may pass
│   └── DeviceLost             ... for good (sticky device error): the process must end
├── EngineUnavailable          the runtime asked for is not installed or has no device
└── RequestError               has an HTTP status and an RFC 9457 problem type
    ├── BadRequest             400  malformed request or parameter
    ├── Unauthorized           401  no API key, or a wrong one
    ├── UnsupportedMediaType   415  a body that is neither a form nor a picture
    ├── UnsupportedImage             415  the bytes are no picture of a format we read
    ├── CorruptImage           400  a picture that ends early or does not decode
    ├── UploadTooSlow          408  by its deadline, or while others wanted its place
    ├── PayloadTooLarge           413
    ├── ImageTooLarge          413
    ├── UriTooLong             414  a query that is longer than any real one
    ├── HeadersTooLarge        431
    ├── NotAcceptable          406  no media type that the client accepts
    ├── Overloaded              429  with Retry-After
    ├── NotReady               503  loading, draining or broken, with Retry-After
    ├── DeadlineExceeded       504
    └── InferenceFailed        500  the engine failed on this picture
"""

from typing import ClassVar


class AlignSegError(Exception):
    """Base of all errors raised on purpose. The message says what was got, what is expected and how to mend it."""


class SettingsError(AlignSegError):
    """A setting that can't be honoured."""


class ManifestError(AlignSegError):
    """The model folder is missing, damaged, or not one this version can read."""


class EngineError(AlignSegError):
    """The runtime failed on a batch."""


class EngineOutOfMemory(EngineError):
    """The runtime ran out of memory; a smaller batch may pass."""


class DeviceLost(EngineError):
    """The device does not answer any more; only a new process helps."""


class EngineUnavailable(AlignSegError):
    """The runtime asked for is not installed, or its device is missing."""


class RequestError(AlignSegError):
    """An error that is answered to the client as application/problem+json (RFC 9457)."""

    status: ClassVar[int] = 400
    slug: ClassVar[str] = "bad-request"
    title: ClassVar[str] = "Bad request"
    retry_after_s: float | None = None

    @property
    def reason(self) -> str:
        """One of a few words, for a metric's label."""
        return self.slug


class BadRequest(RequestError):
    """400: a malformed request or parameter."""


class Unauthorized(RequestError):
    """401: no API key, or one that is not known."""

    status = 401
    slug = "unauthorized"
    title = "An API key is needed"


class UriTooLong(RequestError):
    """414: the query string is longer than any real one."""

    status = 414
    slug = "uri-too-long"
    title = "The URI is too long"


class HeadersTooLarge(RequestError):
    """431: too many headers, or too many bytes of them."""

    status = 431
    slug = "headers-too-large"
    title = "The headers are too large"


class UnsupportedMediaType(RequestError):
    """415: the request's head says that its body is neither a form nor a picture."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class UnsupportedImage(RequestError):
    """415: the bytes are not a picture of a format that is read."""

    status = 415
    slug = "unsupported-image"
    title = "Not a picture of a supported format"


class CorruptImage(RequestError):
    """400: the picture is truncated or does not decode."""

    slug = "corrupt-image"
    title = "The picture is damaged"


class UploadTooSlow(RequestError):
    """408: the body was not there by its deadline, or stalled while somebody else wanted its place."""

    status = 408
    slug = "upload-too-slow"
    title = "The upload is too slow"


class PayloadTooLarge(RequestError):
    """413: the body is larger than ALIGNSEG_MAX_BODY_BYTES."""

    status = 413
    slug = "payload-too-large"
    title = "The body is too large"


class ImageTooLarge(RequestError):
    """413: the picture has more pixels than ALIGNSEG_MAX_PIXELS."""

    status = 413
    slug = "image-too-large"
    title = "The picture has too many pixels"


class NotAcceptable(RequestError):
    """406: none of the media types in Accept can be made."""

    status = 406
    slug = "not-acceptable"
    title = "No acceptable media type"


class Overloaded(RequestError):
    """429: no room; `retry_after_s` says when it is worth coming back.

    what: that there is too much of: count, bytes, pixels, time; or deadline, when the client's own can't be kept.
    """

    status = 429
    slug = "overloaded"
    title = "The server is at capacity"

    def __init__(self, message: str, retry_after_s: float, what: str = "count") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.what = what

    @property
    def reason(self) -> str:
        """E.g. overloaded-time."""
        return f"{self.slug}-{self.what}"


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
