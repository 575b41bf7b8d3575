"""Generated pages of docs/ for mkdocs: the reference of every option, made of the comments in configs/.

Nothing that is generated is committed. mkdocs calls `on_files` (see `hooks:` in mkdocs.yml).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path

from options import options_page

ROOT = Path(__file__).parents[2]


def on_files(files: Files, config: Any) -> Files:
    """The pages that exist nowhere on the disk, beside those of docs/."""
    page = options_page(ROOT / "configs")
    files.append(File.generated(config, "reference/options.md", content=page))
    return files
