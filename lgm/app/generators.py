"""Generators of views (text or one image), read when they are first asked for, and what they lack here."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path

from lgm.multiview.hub import PREFIX, missing_files
from lgm.types import ViewGenerator

_PACKAGES = ("diffusers", "transformers", "tokenizers")


class Generators:
    """By what they take: "image", "text".

    made: each as it was configured, nothing of its weights read. options: the names of their options on the
        command line, for what the page says.
    """

    def __init__(self, made: dict[str, ViewGenerator], options: dict[str, str]) -> None:
        self._made, self._options = made, options
        for kind, generator in made.items():
            if elevation := getattr(generator, "options", {}).get("elevation_deg"):
                raise ValueError(
                    f"{options[kind]}.elevation_deg={elevation}: the app's four views are level; leave it out"
                )
        self._ready: set[str] = set()
        self._lock = threading.Lock()

    def fault(self, kind: str) -> str:
        """Why it cannot generate, and what to do, in Markdown; "" where it can. Nothing is fetched."""
        generator = self._made.get(kind)
        if generator is None:
            return f"This server was started with `{self._options[kind]}=null`, without such a generator."
        folder = getattr(generator, "folder", None)
        if folder is None:
            return ""  # another kind of generator: `prepare` says what it lacks
        missing = [name for name in _PACKAGES if find_spec(name) is None]
        if missing:
            return (
                f"This needs {', '.join(missing)}: `pip install 'lgm-training[multiview]'`, then start the "
                "app again."
            )
        takes_image = generator.takes_image  # type: ignore[attr-defined]
        files = missing_files(folder, generator.revision, takes_image)  # type: ignore[attr-defined]
        return _how_to_get(folder, self._options[kind], files) if files else ""

    def get(self, kind: str) -> ViewGenerator:
        """Ready to generate; raises ValueError in one line where that is not possible."""
        generator = self._made[kind]
        with self._lock:
            if kind not in self._ready:
                generator.prepare()
                self._ready.add(kind)
        return generator


def _how_to_get(folder: str, option: str, files: list[str]) -> str:
    if folder.startswith(PREFIX):
        name = folder.removeprefix(PREFIX)
        local = Path(name).name
        return (
            f"The weights of {name} are not on this server ({len(files)} files are missing). Download them, "
            "some gigabytes, with\n\n"
            f"```\nhf download {name}\n```\n\n"
            "into the hub's own cache, where the app sees them at the next visit of this page; or to a "
            "folder of your choice, and start the app with it:\n\n"
            f"```\nhf download {name} --local-dir {local}\n"
            f"python -m lgm.app ckpt=… {option}.folder={local}\n```"
        )
    return (
        f"`{option}.folder` of this server lacks {', '.join(f'`{name}`' for name in files[:3])}"
        + (f" and {len(files) - 3} more files" if len(files) > 3 else "")
        + ": put a pipeline in the layout of diffusers there (docs/how-to/text-or-one-image.md)."
    )
