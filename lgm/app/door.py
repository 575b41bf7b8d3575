"""Access control of the app: an ASGI middleware in front of gradio and of our own routes.

A password (HTTP Basic), a list of paths, bounds on what is sent, no path and no URL from a page that is not
an upload, no path of this machine to a page, and headers by which a browser asks no other host for anything.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote

from lgm.app.aliases import Aliases
from lgm.app.messages import Refused
from lgm.app.store import Store

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# What gradio's page asks for, and our own routes; whatever else gradio offers is closed.
_GET = re.compile(
    r"/(?:|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt"
    r"|(?:static|assets|svelte)/[\w./@+-]+"
    r"|objects/[\w-]{22}/[\w.]+"
    r"|gradio_api/(?:info|startup-events|app_id|theme\.css|queue/data|upload_progress"
    r"|heartbeat/\w+|file=.+))",
    re.ASCII,
)
_POST = re.compile(r"/gradio_api/(?:upload|queue/join|run/predict|reset|cancel)/?", re.ASCII)
_STATIC = re.compile(r"/(?:static|assets|svelte|objects)/")  # they name no file of the store
_FILE = "/gradio_api/file="
_MAX_JSON = 1 << 18
_OVERHEAD = 1 << 16  # of a multipart form around its file
# Of what is refused: a client that still sends would see a closed connection, and no reason.
_MAX_DISCARDED = 1 << 28
# 'unsafe-inline' and 'unsafe-eval' are gradio's; all hosts are this one.
_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; connect-src 'self' data: blob:; frame-src 'self'; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Door:
    """An ASGI middleware around `app`.

    store: whose uploads are the only files that a page may name. max_bytes: of a file.
    password: what a browser must give, beside any name; None lets everybody in.
    hosts: names under which the app may be asked for; None is any. Bound to this machine alone, it answers
        to `localhost` only: no page of another site may reach it under a name of its own (DNS rebinding).
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        store: Store,
        max_bytes: int,
        password: str | None = None,
        hosts: Iterable[str] | None = None,
    ) -> None:
        self._app, self._store, self._max_bytes = app, store, max_bytes
        self._aliases = Aliases(store.root)
        self._password = password
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there is no WebSocket here
            await send({"type": "websocket.close", "code": 1008})
            return
        # ASGI headers are bytes in latin-1.
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        status, text = self._fault(scope, headers)
        if not status and scope["method"] == "POST":
            status, text, receive = await self._checked(scope, headers, receive)
        if status:
            await _answer(send, status, text)
            return
        if not _STATIC.match(scope["path"]):
            scope, send = self._real(scope), self._aliases.hiding(send)
        await self._app(scope, receive, _with_headers(send))

    def _real(self, scope: Scope) -> Scope:
        """The same request with an alias of a file as its path, for an answer that is not compressed."""
        prefix, separator, file = scope["path"].partition(_FILE)
        path = prefix + separator + (self._aliases.real(unquote(file)) or "") if file else scope["path"]
        headers = [(k, v) for k, v in scope["headers"] if k.lower() != b"accept-encoding"]
        return {**scope, "path": path, "raw_path": quote(path).encode(), "headers": headers}

    def _upload(self, alias: object) -> bool:
        return self._store.upload(self._aliases.real(alias)) is not None

    def _fault(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str]:
        """A status and a line for what is refused by its headers alone; 0 for what may pass."""
        host = re.sub(r":\d+$", "", headers.get("host", "")).strip("[]").lower()
        if self._hosts is not None and host not in self._hosts:
            return 403, "This app answers to localhost alone; start it with host=0.0.0.0 for others."
        if self._password is not None and not _is_password(headers.get("authorization", ""), self._password):
            return 401, "A password is needed."
        method, path = scope["method"], scope["path"]
        is_open = (method in ("GET", "HEAD") and _GET.fullmatch(path)) or (
            method == "POST" and _POST.fullmatch(path)
        )
        if not is_open:
            return 404, "There is nothing here."
        # CSRF: browsers state whether the request comes from this page.
        if method == "POST" and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "Another site's page asked for that."
        file = path.partition(_FILE)[2]
        if file and not self._upload(unquote(file)):
            return 404, "There is nothing here."
        return 0, ""

    async def _checked(
        self, scope: Scope, headers: dict[str, str], receive: Receive
    ) -> tuple[int, str, Receive]:
        """What was sent, as far as it must be read to be trusted."""
        length = headers.get("content-length", "")
        if not length.isdigit():
            return 411, "The length of what is sent is missing.", receive
        size = int(length)
        if scope["path"].rstrip("/").endswith("/upload"):
            if size > self._max_bytes + _OVERHEAD:
                await _read(receive, min(size, _MAX_DISCARDED), keep=False)
                return 413, f"A file may have {self._max_bytes / (1 << 20):g} MB at most.", receive
            try:
                self._store.check_room(size)
            except Refused as error:
                return 507, str(error), receive
            return 0, "", receive
        if size > _MAX_JSON:
            return 413, "That is too long.", receive
        body = await _read(receive, _MAX_JSON)
        try:
            asked = json.loads(body or b"null") if body is not None else None
            if body is None or not self._names_uploads(asked):
                return 400, "That names a file that is not an upload.", receive
            body = json.dumps(self._with_real_paths(asked)).encode()
        except (ValueError, RecursionError):
            return 400, "That is no JSON.", receive
        return 0, "", _again(body, receive)

    def _with_real_paths(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._with_real_paths(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        changed = {key: self._with_real_paths(entry) for key, entry in value.items()}
        if changed.get("path") is not None:
            changed["path"] = self._aliases.real(changed["path"])
        if changed.get("url") is not None:  # gradio knows the path, and looks at nothing else
            changed["url"] = None
        return changed

    def _names_uploads(self, value: Any) -> bool:
        """Whether each file that a page names is an upload: gradio would fetch a URL, and decode data."""
        if isinstance(value, list):
            return all(map(self._names_uploads, value))
        if not isinstance(value, dict):
            return True
        path = value.get("path")
        if path is not None and not self._upload(path):
            return False
        url = value.get("url")
        if url is not None and not (isinstance(url, str) and _FILE in url):
            return False
        return all(map(self._names_uploads, value.values()))


def _is_password(header: str, password: str) -> bool:
    """Whether a header of HTTP Basic has it, beside whatever name; in constant time."""
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        # Any user name; the password follows the first colon.
        given = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return False
    return hmac.compare_digest(given.encode(), password.encode())


async def _read(receive: Receive, most: int, keep: bool = True) -> bytes | None:
    """A body to its end; None where it is longer than `most`, or the client went away. keep: its bytes."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if keep:
            chunks.append(chunk)
        if size > most:
            return None
        if not message.get("more_body"):
            return b"".join(chunks)


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body once more, and then what follows."""
    is_given = False

    async def call() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return call


def _with_headers(send: Send) -> Send:
    async def call(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {key.lower() for key, _ in message.get("headers", ())}
            more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return call


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="LGM", charset="UTF-8"'))
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
