"""The viewer's answers to requests, independent of the server that carries them."""

from __future__ import annotations

import io
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.reports.splats.packing import packed
from lgm.reports.splats.page import script
from lgm.viewer.framing import framed
from lgm.viewer.objects import InputViews, ObjectSet, ViewedObject
from lgm.viewer.video import frames_to_mp4

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in ("page.js", "frustums.js", "saving.js")},
}
_OBJECT = re.compile(r"/sets/(\d{1,3})/objects/(\d{1,9})(?:/(gaussians)|/inputs/(\d{1,4})\.png)?")
_WAIT_S = 20.0
_KEPT = 8  # objects in memory


class NotThere(Exception):
    """Nothing has that address."""


@dataclass(frozen=True)
class Answer:
    """An HTTP response. status: its code. kind: the content's media type."""

    status: int
    kind: str
    content: bytes


class Answers:
    """Requests to answers; called by one thread per connection."""

    def __init__(self, sets: Sequence[ObjectSet], live: bool, max_gaussians: int) -> None:
        self._sets, self._live, self._max_gaussians = list(sets), live, max_gaussians
        self._version, self._closed = 1, False
        self._changes = threading.Condition()
        self._loading = threading.Lock()
        self._objects: OrderedDict[tuple[int, str], ViewedObject] = OrderedDict()

    def __call__(self, method: str, path: str, query: dict[str, str], body: bytes) -> Answer:
        """Raises NotThere, and ValueError or OSError in one line for what cannot be read."""
        if method == "POST":
            if path != "/video":
                raise NotThere(path)
            return Answer(200, "video/mp4", frames_to_mp4(body, float(query.get("fps", "30"))))
        if path in _FILES:
            name, kind = _FILES[path]
            return Answer(200, f"{kind}; charset=utf-8", (Path(__file__).parent / name).read_bytes())
        if path == "/splats.js":
            return Answer(200, "text/javascript; charset=utf-8", script().encode())
        if path == "/state":
            return _json(self._state(query.get("after", "")))
        if match := _OBJECT.fullmatch(path):
            return self._of_object(*match.groups())
        raise NotThere(path)

    def changed(self) -> None:
        """The objects are new: drop what is in memory and wake the pages that wait."""
        with self._changes:
            self._version += 1
            self._changes.notify_all()
        with self._loading:
            self._objects.clear()

    def close(self) -> None:
        """Wake the pages that wait; the server is about to end."""
        with self._changes:
            self._closed = True
            self._changes.notify_all()

    def _state(self, after: str) -> dict:
        with self._changes:
            if self._live and after == str(self._version):
                # Long polling: the answer waits for a change, so that pages need no timer and no WebSocket.
                self._changes.wait_for(lambda: self._closed or after != str(self._version), _WAIT_S)
            return {
                "version": self._version,
                "live": self._live and not self._closed,
                "camera": {"radius": RADIUS, "fovYDeg": FOV_Y_DEG},
                "sets": [{"title": x.title, "step": x.step, "objects": x.names} for x in self._sets],
            }

    def _of_object(self, set_index: str, index: str, gaussians: str | None, image: str | None) -> Answer:
        viewed = self._load(int(set_index), int(index))
        inputs = viewed.inputs
        if gaussians:
            return Answer(200, "application/octet-stream", packed(viewed.gaussians))
        if image is not None:
            if inputs is None or inputs.images is None or int(image) >= len(inputs.images):
                raise NotThere(f"no input {image}")
            with io.BytesIO() as file:
                Image.fromarray(inputs.images[int(image)]).save(file, format="PNG")
                return Answer(200, "image/png", file.getvalue())
        return _json(
            {
                "gaussians": viewed.gaussians.num_gaussians,
                "notes": viewed.notes,
                "inputs": [] if inputs is None else _inputs(inputs),
            }
        )

    def _load(self, set_index: int, index: int) -> ViewedObject:
        if set_index >= len(self._sets):
            raise NotThere(f"no set {set_index}")
        shown = self._sets[set_index]
        with self._loading:  # networks and files are read by one thread at a time
            names = shown.names
            if index >= len(names):
                raise NotThere(f"no object {index}")
            key = (set_index, names[index])
            if key not in self._objects:
                self._objects[key] = framed(shown.load(names[index]), self._max_gaussians)
                # Least recently loaded first.
                while len(self._objects) > _KEPT:
                    self._objects.popitem(last=False)
            return self._objects[key]


def _inputs(inputs: InputViews) -> list[dict]:
    c2w, K_norm, flags = inputs.cameras.c2w, inputs.cameras.K_norm, inputs.cameras.is_orthographic
    return [
        {
            "c2w": c2w[view].tolist(),
            "kNorm": K_norm[view].tolist(),
            "isOrthographic": flags is not None and bool(flags[view]),
            "hasImage": inputs.images is not None,
        }
        for view in range(len(c2w))
    ]


def _json(value: object) -> Answer:
    return Answer(200, "application/json", json.dumps(value, allow_nan=False).encode())
