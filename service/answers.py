"""The forms an answer can take: one function a media type, from a segmentation to the bytes of a body."""

from collections.abc import Callable, Mapping
from typing import Final

from service import bundle, encode, media
from service.contracts import UInt8Array
from service.json_answer import mask_png, render_json
from service.segmentation import Segmentation, find_classes
from service.summary import check_ids
from service.wishes import Wishes

_OVERLAID: Final = frozenset({media.JPEG, media.WEBP, media.ZIP, media.MULTIPART})
Renderer = Callable[[Segmentation, Wishes], bytes]


def render_png(seg: Segmentation, wishes: Wishes) -> bytes:
    """The indexed PNG itself: each pixel's index is its class id."""
    return mask_png(_shown(seg, wishes), wishes)


def render_npy(seg: Segmentation, wishes: Wishes) -> bytes:
    """The ids themselves, (H, W) uint8."""
    return encode.npy(_shown(seg, wishes).ids)


def _overlay(draw: Callable[[UInt8Array, UInt8Array, UInt8Array, float], bytes]) -> Renderer:
    def render(seg: Segmentation, wishes: Wishes) -> bytes:
        return draw(seg.picture, _shown(seg, wishes).ids, seg.model.palette, wishes.alpha)

    return render


def _shown(seg: Segmentation, wishes: Wishes) -> Segmentation:
    return seg.restricted_to(find_classes(wishes.classes, seg.model)) if wishes.classes else seg


def render(media_type: str, wishes: Wishes, seg: Segmentation) -> bytes:
    """The body of an answer. Raises InferenceFailed when an id of the engine's has no class, NotAcceptable."""
    if media_type != media.PNG or wishes.classes:  # whose palette is held against them anyway, if none is left out
        check_ids(int(seg.ids.max()), len(seg.model.classes))
    return RENDERERS[media_type](seg, wishes)


RENDERERS: Final[Mapping[str, Renderer]] = {
    media.JSON: render_json,
    media.PNG: render_png,
    media.JPEG: _overlay(encode.overlay_jpeg),
    media.WEBP: _overlay(encode.overlay_webp),
    media.NPY: render_npy,
    media.ZIP: bundle.render_zip,
    media.MULTIPART: bundle.render_multipart,
}


def shows_picture(media_type: str, wishes: Wishes) -> bool:
    """Whether the answer has an overlay: only then are the picture's own pixels needed."""
    return media_type in _OVERLAID or "overlay" in wishes.include


def content_type(media_type: str) -> str:
    """The header's value for a body of this media type."""
    return f"{media_type}; boundary={bundle.BOUNDARY}" if media_type == media.MULTIPART else media_type
