"""Routing by exact path, for GET and HEAD only."""

from collections.abc import Mapping
from http import HTTPStatus

from mempressure.http.messages import Answer, Request, Response, plain


def serve_pages(pages: Mapping[str, Answer]) -> Answer:
    """Return a function that answers from a table of pages by path: 404 for other paths, 405 for other methods."""

    def answer(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
        page = pages.get(request.path)
        return plain(HTTPStatus.NOT_FOUND) if page is None else page(request)

    return answer
