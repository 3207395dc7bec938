"""The forms an answer can take: one function a media type, from a segmentation to the bytes of a body."""

from collections.abc import Callable, Mapping
from typing import Final

from service.rendering import archive, images, media_types
from service.rendering.class_stats import check_ids
from service.rendering.json_response import mask_png, render_json
from service.rendering.options import RenderOptions
from service.rendering.segmentation import Segmentation, find_classes
from service.types import UInt8Array

_OVERLAID: Final = frozenset({media_types.JPEG, media_types.WEBP, media_types.ZIP, media_types.MULTIPART})
Renderer = Callable[[Segmentation, RenderOptions], bytes]


def render_png(seg: Segmentation, wishes: RenderOptions) -> bytes:
    """The indexed PNG itself: each pixel's index is its class id."""
    return mask_png(_shown(seg, wishes), wishes)


def render_npy(seg: Segmentation, wishes: RenderOptions) -> bytes:
    """The ids themselves, (H, W) uint8."""
    return images.npy(_shown(seg, wishes).ids)


def _overlay(draw: Callable[[UInt8Array, UInt8Array, UInt8Array, float], bytes]) -> Renderer:
    def render(seg: Segmentation, wishes: RenderOptions) -> bytes:
        return draw(seg.picture, _shown(seg, wishes).ids, seg.model.palette, wishes.alpha)

    return render


def _shown(seg: Segmentation, wishes: RenderOptions) -> Segmentation:
    return seg.restricted_to(find_classes(wishes.classes, seg.model)) if wishes.classes else seg


def render(media_type: str, wishes: RenderOptions, seg: Segmentation) -> bytes:
    """The body of an answer. Raises InferenceFailed when an id of the engine's has no class, NotAcceptable."""
    if (
        media_type != media_types.PNG or wishes.classes
    ):  # whose palette is held against them anyway, if none is left out
        check_ids(int(seg.ids.max()), len(seg.model.classes))
    return RENDERERS[media_type](seg, wishes)


RENDERERS: Final[Mapping[str, Renderer]] = {
    media_types.JSON: render_json,
    media_types.PNG: render_png,
    media_types.JPEG: _overlay(images.overlay_jpeg),
    media_types.WEBP: _overlay(images.overlay_webp),
    media_types.NPY: render_npy,
    media_types.ZIP: archive.render_zip,
    media_types.MULTIPART: archive.render_multipart,
}


def shows_picture(media_type: str, wishes: RenderOptions) -> bool:
    """Whether the answer has an overlay: only then are the picture's own pixels needed."""
    return media_type in _OVERLAID or "overlay" in wishes.include


def content_type(media_type: str) -> str:
    """The header's value for a body of this media type."""
    return f"{media_type}; boundary={archive.BOUNDARY}" if media_type == media_types.MULTIPART else media_type
