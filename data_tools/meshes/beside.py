"""Files that a mesh names: material libraries and textures, where they really lie."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lgm.data.schema.decode import opened_image
from lgm.errors import shown

MAX_TEXTURE_PIXELS = 1 << 26  # 8192 squared; decoded it takes 256 MiB
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tga", ".bmp", ".tif", ".tiff", ".webp", ".gif")
# Where archives keep their textures, below the mesh's folder or beside it.
_TEXTURE_FOLDERS = ("textures", "texture", "tex", "maps", "map", "images", "image", "img", "materials")
# Of names that are no UTF-8 and are not found as Windows-1252 either.
_CODE_PAGES = ("gb18030", "cp932", "cp949", "big5", "cp1251", "cp866", "cp1250", "cp437")


def decode_lines(content: bytes) -> Iterator[str]:
    """A text file's lines. A byte order mark of UTF-16 or UTF-32 is obeyed; else each line by itself is UTF-8
    or Windows-1252, whatever stands above it."""
    return (decode_name(line) for line in to_utf8(content).splitlines())


def to_utf8(content: bytes) -> bytes:
    """UTF-16 and UTF-32 with a byte order mark become UTF-8; everything else stays, without its own mark."""
    for mark, encoding in ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"),
                           (b"\xfe\xff", "utf-16")):  # fmt: skip
        if content.startswith(mark):
            return content.decode(encoding, errors="replace").encode("utf-8")
    return content.removeprefix(b"\xef\xbb\xbf")


def decode_name(raw: bytes) -> str:
    """UTF-8, or what Windows programs write where it is none."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")  # five bytes are no character in Windows-1252


def open_texture(name: str, folder: Path, notes: list[str]) -> Image.Image | None:
    """A texture by the name that a mesh's files give it; None where it can't be had, which is noted."""
    path = find_texture(name, folder)
    if path is None:
        notes.append(f"texture {name!r} not found; its material's colour is used")
        return None
    if _folded(path.name) != _folded(_last_part(name)) and path.stem.isascii():
        notes.append(f"texture {name!r} not found; {path.name!r} is used")
    try:
        with opened_image(path, "it", max_pixels=MAX_TEXTURE_PIXELS, formats=None, kind=ValueError) as image:
            image.load()
            return image
    except ValueError as error:
        notes.append(f"texture {shown(repr(name))} unreadable ({error}); its material's colour is used")
        return None


def find_texture(name: str, folder: Path) -> Path | None:
    """As `find_beside`; then in the folders where archives keep textures; then as an image of another format,
    which the archive's packer converted it to."""
    folders = [folder, *_texture_folders(folder)]
    for candidate in folders:
        if (path := find_beside(name, candidate)) is not None:
            return path
    stem = _folded(_last_part(name)).rpartition(".")[0]
    for candidate in folders if stem else ():
        matches = (
            p for p in _listed(candidate) if _folded(p.stem) == stem and p.suffix.lower() in IMAGE_SUFFIXES
        )
        if (path := next(matches, None)) is not None:
            return path
    return None


def find_beside(name: str, folder: Path) -> Path | None:
    """A file that a mesh names: as written, or by its last part (an absolute path of the author's
    own machine), or with other upper and lower case, or accents written apart (as macOS does), or in the code
    page of another country."""
    for candidate in _spellings(name):
        portable = candidate.replace("\\", "/")
        try:
            for path in (folder / portable, folder / _last_part(candidate)):
                if path.is_file():
                    return path
        except (OSError, ValueError):  # a name too long, or with a null in it
            continue
        target = _folded(_last_part(candidate))
        if (
            path := next((p for p in _listed(folder) if _folded(p.name) == target and p.is_file()), None)
        ) is not None:
            return path
    return None


def same_stem(mesh: Path, suffixes: tuple[str, ...]) -> Path | None:
    """A file beside a mesh that is called as it is, for meshes that name none."""
    # Asked for by name: to list a folder of many meshes once for each of them would take hours.
    for stem in dict.fromkeys((mesh.stem, mesh.stem.lower(), mesh.stem.upper(), mesh.stem.capitalize())):
        for suffix in suffixes:
            for spelling in (suffix, suffix.upper()):
                if (path := mesh.with_name(stem + spelling)).is_file():
                    return path
    return None


def _spellings(name: str) -> Iterator[str]:
    yield name
    if name.isascii():
        return
    for written in ("cp1252", "latin-1"):
        try:
            raw = name.encode(written)
        except UnicodeEncodeError:
            continue
        for read in _CODE_PAGES:
            try:
                yield raw.decode(read)
            except UnicodeDecodeError:
                continue
        return


def _texture_folders(folder: Path) -> Iterator[Path]:
    for ancestor in (folder, folder.parent):
        for name in _TEXTURE_FOLDERS:
            for spelling in (name, name.capitalize()):
                if (ancestor / spelling).is_dir():
                    yield ancestor / spelling


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()
