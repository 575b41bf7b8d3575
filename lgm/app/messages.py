"""Error messages of the app's page: one line, without this machine's paths and without names of options."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from lgm.errors import first_line, shown

log = logging.getLogger(__name__)

UNEXPECTED = "Something went wrong on the server, and its log says what; the same again may work."
_OPTION = re.compile(r"\b(?:data|multiview|trainer|train|meshing)[./]\w")


class Refused(ValueError):
    """An error that the person at the page can mend; its text is shown there."""


def message(error: BaseException, folder: Path | None = None) -> str:
    """The line for an error; one that is not a person's is logged with its traceback.

    folder: of the images; their paths in it become their names.
    """
    if not isinstance(error, ValueError | FileNotFoundError | ImportError):
        log.error("%s", first_line(error), exc_info=error)
        return UNEXPECTED
    text = first_line(error)
    if not isinstance(error, Refused):
        log.info("refused: %s", text)
    if folder is not None:
        text = text.replace(f"{folder}/", "").replace(str(folder), "the images")
        text = re.sub(rf"^object '{re.escape(folder.name)}': ", "", text)
    # What remains of options of the command line is no help here.
    parts = [part for part in text.split("; ") if not _OPTION.search(part)]
    text = "; ".join(parts) or "The images cannot be used."
    return shown(text[:1].upper() + text[1:])
