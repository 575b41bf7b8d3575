"""Paths as a client sees them: gradio names its uploads by absolute paths, which are this machine's.

In what is served, the store's folder is `/files`; in what a client sends, `/files/uploads/…` is the upload
again.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]

ALIAS = "/files"
_KINDS = (b"text/html", b"application/json", b"text/event-stream")
_STREAM = b"text/event-stream"


class Aliases:
    """root: the folder that no client learns, resolved."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        # As it stands in text, in JSON, and in a URL; the longest first, for one may hold another.
        forms = {self._root, json.dumps(self._root)[1:-1], quote(self._root), quote(self._root, safe="")}
        self._forms = [form.encode() for form in sorted(forms, key=len, reverse=True)]

    def real(self, path: object) -> str | None:
        """The path that an alias stands for; None for anything else, this machine's own paths among it."""
        if not isinstance(path, str) or not path.startswith(f"{ALIAS}/"):
            return None
        return self._root + path.removeprefix(ALIAS)

    def hidden(self, content: bytes) -> bytes:
        """The same bytes with the alias for the folder."""
        for form in self._forms:
            content = content.replace(form, ALIAS.encode())
        return content

    def hiding(self, send: Send) -> Send:
        """A send that hides the folder in pages, JSON and event streams. Answers must not be compressed."""
        start: Message | None = None
        chunks: list[bytes] = []
        is_text = is_stream = False

        async def call(message: Message) -> None:
            nonlocal start, is_text, is_stream
            if message["type"] == "http.response.start":
                kind = dict(message.get("headers", ())).get(b"content-type", b"")
                is_text, is_stream = kind.startswith(_KINDS), kind.startswith(_STREAM)
                if is_text and not is_stream:
                    start = message  # its length is known at the end
                    return
            elif message["type"] == "http.response.body" and is_stream:
                message = {**message, "body": self.hidden(message.get("body", b""))}  # whole events
            elif message["type"] == "http.response.body" and start is not None:
                chunks.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                body = self.hidden(b"".join(chunks))
                headers = [(k, v) for k, v in start.get("headers", ()) if k.lower() != b"content-length"]
                length = (b"content-length", str(len(body)).encode())
                await send({**start, "headers": [*headers, length]})
                start = None
                message = {"type": "http.response.body", "body": body}
            await send(message)

        return call
