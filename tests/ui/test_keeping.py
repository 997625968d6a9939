"""Static files from memory: the same answers, and only those that always are the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lsviz.ui import keeping
from lsviz.ui.keeping import KeptFiles


class Counting:
    """A server that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.app = KeptFiles(Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])]))

    async def _answer(self, request: Request) -> Response:
        self.asked += 1
        path = request.url.path
        if path.endswith("missing.js"):
            return PlainTextResponse("none", 404)
        if path.endswith("streamed.js"):
            return StreamingResponse(iter([b"one", b"two"]), headers={"etag": "s"})
        text = f"{path} {request.headers.get('accept-encoding', '')} {self.asked}"
        return PlainTextResponse(text, headers={"etag": "x", "cache-control": "immutable"})

    def ask(
        self, path: str, method: str = "GET", query: bytes = b"", **headers: str
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[Any] = []
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query,
            "headers": named, "root_path": "", "scheme": "http", "server": ("127.0.0.1", 1),
            "http_version": "1.1",
        }  # fmt: skip

        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            return next(asked, None) or await asyncio.Event().wait()  # who asked stays connected

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), body


def test_a_file_is_answered_again_as_it_was_the_first_time() -> None:
    server = Counting()
    for path in ("/static/js/a.js", "/static/js/streamed.js"):
        before = server.asked
        first = server.ask(path, accept_encoding="gzip")
        assert server.ask(path, accept_encoding="gzip") == first
        assert server.asked == before + 1
    assert server.ask("/static/js/a.js", accept_encoding="br")[2] != server.ask("/static/js/a.js")[2]


@pytest.mark.parametrize(
    ("path", "method", "query", "headers"),
    [
        ("/", "GET", b"", {}),
        ("/_stcore/health", "GET", b"", {}),
        ("/media/a.png", "GET", b"", {}),
        ("/static/missing.js", "GET", b"", {}),
        ("/static/a.js", "POST", b"", {}),
        ("/static/a.js", "GET", b"v=1", {}),
        ("/static/a.js", "GET", b"", {"range": "bytes=0-1"}),
        ("/static/a.js", "GET", b"", {"if_none_match": "x"}),
        ("/static/a.js", "GET", b"", {"origin": "http://localhost"}),
    ],
)
def test_all_else_is_asked_for_each_time(
    path: str, method: str, query: bytes, headers: dict[str, str]
) -> None:
    server = Counting()
    for _ in range(2):
        server.ask(path, method, query, **headers)
    assert server.asked == 2


def test_no_more_is_kept_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MAX_KEPT", 30)
    server = Counting()
    for _ in range(2):
        server.ask("/static/first.js")
        server.ask("/static/second.js")
    assert server.asked == 3
