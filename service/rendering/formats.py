"""Response formats: for each media type, a function from a segmentation to the bytes of the response body."""

from collections.abc import Callable, Mapping
from typing import Final

from service.rendering import archive, images, media_types
from service.rendering.class_stats import check_ids
from service.rendering.json_response import mask_png, render_json
from service.rendering.options import RenderOptions
from service.rendering.segmentation import Segmentation
from service.rendering.selection import select
from service.types import UInt8Array

_OVERLAID: Final = frozenset({media_types.JPEG, media_types.WEBP, media_types.ZIP, media_types.MULTIPART})
Renderer = Callable[[Segmentation, RenderOptions], bytes]


def render_png(seg: Segmentation, options: RenderOptions) -> bytes:
    """An indexed PNG: each pixel's index is its class id."""
    return mask_png(_selected(seg, options), options)


def render_npy(seg: Segmentation, options: RenderOptions) -> bytes:
    """A NumPy file of the ids, (H, W) uint8."""
    return images.npy(_selected(seg, options).ids)


def _overlay(draw: Callable[[UInt8Array, UInt8Array, UInt8Array, float], bytes]) -> Renderer:
    def render(seg: Segmentation, options: RenderOptions) -> bytes:
        return draw(seg.image, _selected(seg, options).ids, seg.model.palette, options.alpha)

    return render


def _selected(seg: Segmentation, options: RenderOptions) -> Segmentation:
    return seg.restricted_to(select(options.classes, seg.model, seg.model.name)) if options.classes else seg


def render(media_type: str, options: RenderOptions, seg: Segmentation) -> bytes:
    """The response body. Raises InferenceFailed when the engine returned an id without a class, and NotAcceptable."""
    # A PNG of all classes checks its ids itself, against its palette.
    if media_type != media_types.PNG or options.classes:
        check_ids(int(seg.ids.max()), len(seg.model.classes))
    return RENDERERS[media_type](seg, options)


RENDERERS: Final[Mapping[str, Renderer]] = {
    media_types.JSON: render_json,
    media_types.PNG: render_png,
    media_types.JPEG: _overlay(images.overlay_jpeg),
    media_types.WEBP: _overlay(images.overlay_webp),
    media_types.NPY: render_npy,
    media_types.ZIP: archive.render_zip,
    media_types.MULTIPART: archive.render_multipart,
}


def needs_pixels(media_type: str, options: RenderOptions) -> bool:
    """Whether the response has an overlay, which is drawn on the image's own pixels."""
    return media_type in _OVERLAID or "overlay" in options.include


def content_type(media_type: str) -> str:
    """The Content-Type header of a body of this media type."""
    return f"{media_type}; boundary={archive.BOUNDARY}" if media_type == media_types.MULTIPART else media_type
