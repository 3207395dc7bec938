"""Every error that a user of the service can get.

AlignSegError
├── SettingsError                  an ALIGNSEG_* setting is invalid
├── ManifestError                  the model folder is missing, damaged or of an unknown format
├── EngineError                    the runtime failed on a batch
│   ├── EngineOutOfMemory          ... for lack of memory; a smaller batch may succeed
│   └── DeviceLost                 ... and the device is unusable; the process must be restarted
├── EngineUnavailable              the requested runtime is not installed or has no device
└── RequestError                   has an HTTP status and an RFC 9457 problem type
    ├── BadRequest             400 malformed request or parameter
    ├── CorruptImage           400 the image is truncated or does not decode
    ├── Unauthorized           401 no API key, or an unknown one
    ├── NotAcceptable          406 no supported media type is acceptable to the client
    ├── UploadTooSlow          408 the body did not arrive in time
    ├── PayloadTooLarge        413 the body has too many bytes
    ├── ImageTooLarge          413 the image has too many pixels
    ├── UriTooLong             414 the query string is too long
    ├── UnsupportedMediaType   415 the body is neither a form nor an image
    ├── UnsupportedImage       415 the image's format is not supported
    ├── Overloaded             429 the server is at capacity; has Retry-After
    ├── HeadersTooLarge        431 too many headers, or too many bytes of them
    ├── InferenceFailed        500 the engine failed on this image
    ├── NotReady               503 the server is loading, draining or broken; has Retry-After
    └── DeadlineExceeded       504 the request's deadline passed
"""

from typing import ClassVar


class AlignSegError(Exception):
    """Base of all deliberate errors. The message says what was received, what was expected and how to fix it."""


class SettingsError(AlignSegError):
    """An ALIGNSEG_* setting is invalid."""


class ManifestError(AlignSegError):
    """The model folder is missing, damaged, or of a format that this version does not know."""


class EngineError(AlignSegError):
    """The runtime failed on a batch."""


class EngineOutOfMemory(EngineError):
    """The runtime ran out of memory; a smaller batch may succeed."""


class DeviceLost(EngineError):
    """The device is unusable for this process; only a restart helps."""


class EngineUnavailable(AlignSegError):
    """The requested runtime is not installed, or its device is missing."""


class RequestError(AlignSegError):
    """An error that becomes an application/problem+json response (RFC 9457).

    status: HTTP status. slug: the end of the problem type, urn:alignseg:problem:SLUG. title: the problem's title.
    retry_after_s: seconds for Retry-After, if any.
    """

    status: ClassVar[int] = 400
    slug: ClassVar[str] = "bad-request"
    title: ClassVar[str] = "Bad request"
    retry_after_s: float | None = None

    @property
    def reason(self) -> str:
        """The metric label: the slug, for Overloaded with its cause."""
        return self.slug


class BadRequest(RequestError):
    """400: a malformed request or parameter."""


class CorruptImage(RequestError):
    """400: the image is truncated or does not decode."""

    slug = "corrupt-image"
    title = "Corrupt image"


class Unauthorized(RequestError):
    """401: no API key, or an unknown one."""

    status = 401
    slug = "unauthorized"
    title = "API key required"


class NotAcceptable(RequestError):
    """406: the response can't have any of the media types in Accept."""

    status = 406
    slug = "not-acceptable"
    title = "No acceptable media type"


class UploadTooSlow(RequestError):
    """408: the body did not arrive by its deadline, or stalled while another request needed its slot."""

    status = 408
    slug = "upload-too-slow"
    title = "Upload too slow"


class PayloadTooLarge(RequestError):
    """413: the body is larger than ALIGNSEG_MAX_BODY_BYTES."""

    status = 413
    slug = "payload-too-large"
    title = "Request body too large"


class ImageTooLarge(RequestError):
    """413: the image has more pixels than ALIGNSEG_MAX_PIXELS, or needs more tiles than ALIGNSEG_MAX_TILES."""

    status = 413
    slug = "image-too-large"
    title = "Image too large"


class UriTooLong(RequestError):
    """414: the query string is too long."""

    status = 414
    slug = "uri-too-long"
    title = "URI too long"


class UnsupportedMediaType(RequestError):
    """415: by its Content-Type, the body is neither a form nor an image."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class UnsupportedImage(RequestError):
    """415: the body is not an image of a supported format."""

    status = 415
    slug = "unsupported-image"
    title = "Unsupported image format"


class Overloaded(RequestError):
    """429: the server is at capacity.

    retry_after_s: when the request is likely to be accepted.
    what: the limit that was reached: count, bytes, pixels or time; deadline if the client's own can't be met.
    """

    status = 429
    slug = "overloaded"
    title = "Server at capacity"

    def __init__(self, message: str, retry_after_s: float, what: str = "count") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.what = what

    @property
    def reason(self) -> str:
        """The metric label, e.g. overloaded-time."""
        return f"{self.slug}-{self.what}"


class HeadersTooLarge(RequestError):
    """431: too many headers, or too many bytes of them."""

    status = 431
    slug = "headers-too-large"
    title = "Request headers too large"


class InferenceFailed(RequestError):
    """500: the engine failed on this image."""

    status = 500
    slug = "inference-failed"
    title = "Inference failed"


class NotReady(RequestError):
    """503: the server is loading, draining or broken. retry_after_s: when to try again."""

    status = 503
    slug = "not-ready"
    title = "Server not ready"

    def __init__(self, message: str, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestError):
    """504: the request's deadline passed before its result was ready."""

    status = 504
    slug = "deadline-exceeded"
    title = "Deadline exceeded"
