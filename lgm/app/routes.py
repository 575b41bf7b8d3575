"""The app's own addresses: an object's files by its token, and the page in which it turns."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

from lgm.app.sessions import Sessions
from lgm.app.studio import MESH, PACKED, PLY, VIDEO
from lgm.reports.splats.page import page

VIEWER = "view"
_KINDS = {
    PLY: "application/octet-stream",
    PACKED: "application/octet-stream",
    MESH: "model/gltf-binary",
    VIDEO: "video/mp4",
}


def application(sessions: Sessions) -> FastAPI:
    """`/objects/<token>/<name>`: a file, or the viewer; 404 for what is unknown or has expired."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    viewer = page(PACKED, title="Object")

    @app.get("/objects/{token}/{name}")
    @app.head("/objects/{token}/{name}")
    def get(token: str, name: str) -> Response:
        if name == VIEWER and sessions.store.folder(token) is not None:
            return HTMLResponse(viewer, headers={"cache-control": "no-store"})
        path = sessions.file(token, name)
        if path is None:
            return PlainTextResponse("This object is unknown, or has expired.", status_code=404)
        # A page shows a video in place; everything else is to be kept.
        disposition = "inline" if name in (VIDEO, PACKED) else "attachment"
        return FileResponse(
            path,
            media_type=_KINDS[name],
            filename=name,
            content_disposition_type=disposition,
            headers={"cache-control": "private, no-store"},
        )

    return app
