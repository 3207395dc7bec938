import pytest

from service.errors import NotAcceptable
from service.http.content_negotiation import choose
from service.rendering.formats import RENDERERS
from service.rendering.media_types import JPEG, JSON, MULTIPART, NPY, PNG, WEBP, ZIP


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [("", JSON), ("*/*", JSON), ("image/png", PNG), ("image/*", PNG), ("application/json", JSON),
     ("image/png, */*", PNG), ("image/png;q=0.5, application/json", JSON), ("image/png;q=0.5, */*;q=0.1", PNG),
     ("application/json;q=0, */*", PNG), ("image/png, application/json", PNG), ("application/json, image/png", JSON),
     ("text/html, application/xhtml+xml, image/avif, */*;q=0.8", JSON), ("IMAGE/PNG", PNG),
     ("image/jpeg", JPEG), ("image/avif, image/webp, */*;q=0.8", WEBP),
     ("image/*;q=0.9, image/png;q=0.1", JPEG),
     ("application/x-npy", NPY), ("application/zip, multipart/*;q=0.9", ZIP), ("multipart/mixed", MULTIPART),
     ("application/*", JSON),
     ("*/*;q=0.1, image/png;q=0.2", PNG), ("image/png;q=banana, application/json", JSON),
     ("image/png;q=nan, application/json;q=0.5", JSON), ("image/png;q=2, application/json", JSON),
     ("text/html, */*;q=0.1", JSON)],
)  # fmt: skip
def test_the_best_acceptable_media_type_is_chosen(accept: str, chosen: str) -> None:
    assert choose(accept, tuple(RENDERERS)) == chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [("image/jpg", JPEG), ("image/pjpeg", JPEG), ("IMAGE/JPG", JPEG), ("image/x-png", PNG), ("text/json", JSON),
     ("application/x-zip-compressed", ZIP), ("image/jpg;q=0.5, image/png", PNG), ("*", JSON), ("*;q=.2", JSON)],
)  # fmt: skip
def test_other_names_of_media_types_are_known(accept: str, chosen: str) -> None:
    assert choose(accept, tuple(RENDERERS)) == chosen


JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [(JAVA, JSON), (CHROME, JSON), ("text/html, image/gif, image/jpeg, */*; q=0.2", JSON),
     ("text/html, image/avif, image/webp, */*;q=0.8", JSON), ("text/html, image/png, */*", JSON),
     # Without the wildcard, or with an image before the page, an image is what is asked for.
     ("text/html, image/jpeg", JPEG), ("text/html;q=0.5, image/jpeg, */*;q=0.2", JPEG),
     ("*/*;q=0.8,image/*", PNG), ("image/png, */*", PNG), ("image/avif,image/webp,image/*,*/*;q=0.8", WEBP),
     ("text/html, image/png, */*;q=0", PNG)],
)  # fmt: skip
def test_the_default_header_of_browsers_and_java_gets_json(accept: str, chosen: str) -> None:
    assert choose(accept, tuple(RENDERERS)) == chosen


@pytest.mark.parametrize(
    "accept", ["text/html", "image/gif", "*/*;q=0", "nonsense", "image/png;q=0", "image/png;q=inf"]
)
def test_without_an_acceptable_media_type_the_error_lists_all(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="Available media types: application/json, image/png, image/jpeg"):
        choose(accept, tuple(RENDERERS))
