"""One rendered object on its way into a shard: checked, filtered, its images encoded or copied."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.pack.filters import (
    FilteredOut,
    FilterOptions,
    caption_fault,
    image_fault,
    measure_image,
    rule_fault,
)
from data_tools.pack.images import downscale, encode, encode_depth, read_depth
from data_tools.reprojection import reproject
from data_tools.shared.renders import CAMERAS_NAME, META_NAME
from data_tools.shared.shard_reader import Sample
from data_tools.verify.sample_checks import EMPTY_ALPHA
from lgm.data.schema.decode import MAX_VIEW_SIDE, opened_image
from lgm.data.schema.sample import (
    BrokenSample,
    CameraRecord,
    check_sample,
    depth_key,
    json_object,
    view_key,
    view_keys,
)
from lgm.data.schema.surface import SURFACE_KEY, decode_surface
from lgm.errors import Named, reading

COPIED = "rendered"


class CamerasDoNotFit(FilteredOut):
    """The reprojection test faults the object, and verify would."""


_ESTIMATE_VIEWS = 4  # of an object, spread over its views
_TAR_BLOCK = 512


@dataclass(frozen=True)
class ImageOptions:
    """image_format: COPIED for the renders' own files. quality: None for no loss. resolution: None to keep
    the renders' own. depth: whether it is packed."""

    image_format: str
    quality: int | None
    resolution: int | None
    depth: bool = False


class LeftOut(str):
    """One line saying why an object is left out. is_misfit: whether its cameras do not fit its images."""

    is_misfit = False


@dataclass(frozen=True)
class ObjectReader:
    """Reads objects of a folder of renders; crosses to worker processes.

    reprojection: whether objects are left out whose cameras do not fit their images.
    """

    renders: Path
    images: ImageOptions
    filters: FilterOptions
    reprojection: bool = False

    def read(self, uid: str) -> list[tuple[str, bytes]] | LeftOut:
        """An object's files in the order of the shard, or why it is left out."""
        try:
            with reading("its folder", passing=(FilteredOut,)):
                sample, record = self._sample(uid)
                metadata = dict(self.filters.rules.joined(read_metadata(self.renders, uid)))
                fault = rule_fault(metadata, self.filters.rules)
                fault = fault or caption_fault(metadata, self.filters.excluded_words)
                if fault:
                    raise FilteredOut(fault)
                # The order within the tar: metadata first, so that a reader of metadata need not seek past
                # images.
                files = [("json", _json_bytes(metadata)), (CAMERAS_NAME, record.to_json().encode())]
                measures = {}
                for number, name in view_keys(sample).items():
                    content, pixels = (self.renders / uid / name).read_bytes(), None
                    if self.filters.asks_for(number, record.canonical_inputs):
                        pixels = _decode(content)
                        measures[number] = measure_image(pixels, self.filters)
                    files.append(self._packed(number, name, content, pixels))
                    if number in record.canonical_inputs:
                        self._check_not_empty(number, files[-1][1])
                    if self.images.depth:
                        depth = read_depth(self.renders / uid / depth_key(number), self.images.resolution)
                        files.append((depth_key(number), encode_depth(depth)))
                surface = self.renders / uid / SURFACE_KEY
                if surface.is_file():
                    files.append((SURFACE_KEY, surface.read_bytes()))
                    decode_surface(files[-1][1], uid)
                # After all views: a filter needs the measures of the whole object.
                fault = image_fault(measures, self.filters, record.canonical_inputs)
                if fault:
                    raise FilteredOut(fault)
                if self.reprojection:
                    _check_cameras(uid, files)
        except BrokenSample as error:
            return LeftOut(error)
        except (FilteredOut, OSError, ValueError) as error:
            reason = LeftOut(f"object {uid!r}: {error}")
            reason.is_misfit = isinstance(error, CamerasDoNotFit)
            return reason
        return files

    def _check_not_empty(self, number: int, content: bytes) -> None:
        """A network is shown the canonical views: data_tools.verify faults an object that lacks one."""
        if _decode(content)[..., 3].max() < EMPTY_ALPHA:
            raise FilteredOut(
                f"view {number}, a canonical input, is empty (a flat object, edge-on?), which verify faults"
            )

    def digest(self, uid: str) -> str:
        """Of what `read` would find, at little cost: the metadata's and cameras' bytes, the images' names
        and sizes."""
        digest = hashlib.sha256()
        with os.scandir(self.renders / uid) as entries:
            files = {entry.name: entry for entry in entries if entry.is_file()}
        images = view_keys(files)
        for name in (META_NAME, CAMERAS_NAME):
            content = Path(files[name]).read_bytes() if name in files else b""
            digest.update(f"{name}: {len(content)}\n".encode() + content)
        depths = [depth_key(number) for number in images] if self.images.depth else []
        surface = [SURFACE_KEY] if SURFACE_KEY in files else []
        for name in (*images.values(), *depths, *surface):
            size = files[name].stat().st_size if name in files else None
            digest.update(f"{name}: {size}\n".encode())
        return digest.hexdigest()

    def estimate_bytes(self, uid: str) -> float | None:
        """About what an object takes in a shard, from a few of its images; None if it is broken."""
        try:
            names = list(view_keys(self._sample(uid)[0]).values())
            chosen = names[:: max(1, len(names) // _ESTIMATE_VIEWS)]
            encoded = [self._packed(0, name, (self.renders / uid / name).read_bytes())[1] for name in chosen]
            text = (self.renders / uid / CAMERAS_NAME).stat().st_size
            surface = self.renders / uid / SURFACE_KEY
            text += surface.stat().st_size if surface.is_file() else 0
        except (OSError, ValueError):
            return None
        image = sum(map(len, encoded)) / len(encoded)
        # Each file has a header and is filled up to whole blocks.
        return len(names) * (image + 1.5 * _TAR_BLOCK) + text + 4 * _TAR_BLOCK

    def _sample(self, uid: str) -> tuple[dict[str, Any], CameraRecord]:
        folder = self.renders / uid
        sample: dict[str, Any] = {path.name: path for path in folder.iterdir()}
        if CAMERAS_NAME in sample:
            sample[CAMERAS_NAME] = (folder / CAMERAS_NAME).read_bytes()
        return sample, check_sample(sample, uid)

    def _packed(
        self, number: int, name: str, content: bytes, pixels: np.ndarray | None = None
    ) -> tuple[str, bytes]:
        """A view's name and content in the shard, from those among the renders. pixels: if decoded before."""
        if self.images.image_format == COPIED:
            with opened_image(content, name, MAX_VIEW_SIDE, kind=Named) as image:
                image.verify()  # a PNG's checksums, at a tenth of what decoding takes
            return name, content
        pixels = _decode(content) if pixels is None else pixels
        if self.images.resolution is not None:
            pixels = downscale(pixels, self.images.resolution)
        encoded = encode(pixels, self.images.image_format, self.images.quality)
        return view_key(number, self.images.image_format), encoded


def _check_cameras(uid: str, files: list[tuple[str, bytes]]) -> None:
    """On the files as packed, so that verify will say the same."""
    verdict = reproject(Sample(uid, dict(files)))
    if verdict is not None and verdict.faults:
        first, *others = verdict.faults
        more = f"; and {len(others)} more faults" if others else ""
        raise CamerasDoNotFit(f"{first}{more}, which verify faults")


def _decode(content: bytes) -> np.ndarray:
    with opened_image(content, "an image", MAX_VIEW_SIDE, kind=Named) as image:
        return np.array(image.convert("RGBA"))


def read_metadata(renders: Path, uid: str) -> dict[str, Any]:
    """The object's meta.json; its uid alone where there is none."""
    path = renders / uid / META_NAME
    return json_object(path.read_bytes(), str(path)) if path.is_file() else {"uid": uid}


def _json_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
