"""Pipelines on the hub: weights and configuration files only, at one revision, checked by SHA-256."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from lgm.errors import first_line
from lgm.files import file_sha256

log = logging.getLogger(__name__)

PREFIX = "hf:"
# What `lgm.multiview.components` reads; no code and no pickles.
_FILES = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "scheduler/scheduler_config.json",
)
_FILES_FOR_IMAGES = (
    "image_encoder/config.json",
    "image_encoder/model.safetensors",
    "feature_extractor/preprocessor_config.json",
)


def find_pipeline(
    where: str | Path,
    revision: str = "main",
    takes_image: bool = False,
    licence: str = "",
    sha256: Mapping[str, str] | None = None,
) -> Path:
    """The folder of a pipeline: `where` itself or, of `hf:<owner>/<name>`, the hub's local copy, whose
    missing files are fetched first, with progress, and from where they broke off.

    revision: a commit, or a branch. takes_image: whether it has an image encoder.
    licence: what is named before anything is fetched.
    sha256: checksums of files by their name in the pipeline; one that differs is removed.

    Raises ValueError in one line where a file cannot be fetched or is not the one that was pinned.
    """
    text = str(where)
    if not text.startswith(PREFIX):
        return Path(where).expanduser()
    name = text.removeprefix(PREFIX)
    if name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(
            f"multiview.folder={text} names no pipeline; give {PREFIX}<owner>/<name>, or a folder"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ValueError(
            f"multiview.folder={text} needs huggingface_hub: pip install huggingface_hub"
        ) from error
    files = [*_FILES, *(_FILES_FOR_IMAGES if takes_image else ())]
    missing = missing_files(text, revision, takes_image)
    if missing:
        log.warning(
            "%s: fetching %d files at revision=%s; licence: %s", text, len(missing), revision, licence
        )
    # The hub's cache: hf_hub_download resumes and verifies by itself.
    path = Path()
    for file in files:
        try:
            path = Path(hf_hub_download(name, file, revision=revision))
        except Exception as error:  # a dozen types, from a missing file to a missing network
            raise ValueError(
                f"multiview.folder={text}: {file} cannot be fetched ({first_line(error)}); without a network "
                "give a local copy, multiview.folder=<folder>"
            ) from error
        if file in missing and (expected := (sha256 or {}).get(file)):
            _check(path, expected, f"{text}: {file}")
    return path.parents[len(Path(files[-1]).parts) - 1]


def missing_files(where: str | Path, revision: str = "main", takes_image: bool = False) -> list[str]:
    """Missing parts of a pipeline: files of one on the hub, sub-folders of a folder. Nothing is
    fetched. Arguments: see `find_pipeline`."""
    files = [*_FILES, *(_FILES_FOR_IMAGES if takes_image else ())]
    text = str(where)
    if not text.startswith(PREFIX):
        parts = dict.fromkeys(file.partition("/")[0] for file in files)
        return [part for part in parts if not (Path(where).expanduser() / part).is_dir()]
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return files
    name = text.removeprefix(PREFIX)
    return [
        file for file in files if not isinstance(try_to_load_from_cache(name, file, revision=revision), str)
    ]


def _check(path: Path, expected: str, what: str) -> None:
    digest = file_sha256(path)
    if digest != expected:
        path.resolve().unlink()  # the content itself; what the cache has is a link to it
        path.unlink(missing_ok=True)
        raise ValueError(f"{what} has sha256={digest}, expected {expected}; it is removed")
