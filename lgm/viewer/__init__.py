"""Gaussians in a browser: files, runs and checkpoints, and validation objects while a network trains."""

from typing import Any

__all__ = ["ViewerCallback"]


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import, and `python -m lgm.viewer file.ply` has no use for it.
    if name == "ViewerCallback":
        from lgm.viewer.callback import ViewerCallback

        return ViewerCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
