"""The viewer: Gaussians in a browser, from files, runs and checkpoints, or from a training under way."""

from typing import Any

__all__ = ["ViewerCallback"]


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import, and `python -m lgm.viewer file.ply` has no use for it.
    if name == "ViewerCallback":
        from lgm.viewer.callback import ViewerCallback

        return ViewerCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
