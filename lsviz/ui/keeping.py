"""Streamlit's own files kept in memory: a class that opens the dashboard asks for each of them thirty times.

Their names hold a hash of their content, so that what was sent once is right for as long as the server
lives. Streamlit looks each one up on the disk, in another thread, which takes four times as long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Served = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

MAX_FILE: Final = 8_000_000
MAX_KEPT: Final = 60_000_000
"""Bytes of one file, and of all that are kept."""
FOLDER: Final = "/static/"
_CONDITIONS: Final = {b"range", b"if-none-match", b"if-modified-since", b"if-range"}


class KeptFiles:
    """ASGI middleware that answers plain requests for static files from memory, once they were answered.

    Args:
        app: What answers for the first time, and all else.
    """

    def __init__(self, app: Served) -> None:
        self._app = app
        self._kept: dict[tuple[str, bytes], list[Message]] = {}
        self._size = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        key = _key(scope)
        if key is None:
            await self._app(scope, receive, send)
        elif key in self._kept:
            for message in self._kept[key]:
                await send(message)
        else:
            await self._answer_and_keep(key, scope, receive, send)

    async def _answer_and_keep(
        self, key: tuple[str, bytes], scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        messages: list[Message] = []

        async def sent(message: Message) -> None:
            messages.append(dict(message))
            await send(message)

        await self._app(scope, receive, sent)
        body = b"".join(message.get("body", b"") for message in messages)
        whole = bool(messages) and messages[0].get("status") == 200 and not messages[-1].get("more_body")
        known = {message["type"] for message in messages} == {"http.response.start", "http.response.body"}
        if whole and known and len(body) <= MAX_FILE and self._size + len(body) <= MAX_KEPT:
            self._kept[key] = [messages[0], {"type": "http.response.body", "body": body}]
            self._size += len(body)


def _key(scope: MutableMapping[str, Any]) -> tuple[str, bytes] | None:
    """Return what tells an answer that can be kept from others; None where it can't."""
    if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(FOLDER):
        return None
    headers = dict(scope["headers"])
    # An answer may hang on the asker's origin.
    if _CONDITIONS & headers.keys() or b"origin" in headers or scope["query_string"]:
        return None
    return scope["path"], headers.get(b"accept-encoding", b"")
