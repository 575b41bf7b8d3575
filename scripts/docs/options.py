"""The reference of options: each key of configs/ with its default value and its comment, as one page.

    python scripts/docs/options.py        prints the page

A comment belongs to the key on its line, or to the key below it; the comments at the head of a file describe
the file. Keys are written as they are typed on the command line: a file of the group `data/cache` sets
`data.cache.*`, one with `# @package _global_` sets what it names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the pages are built without an installed program

from lgm.config_files import ConfigFile, read_config

__all__ = ["options_page", "read_config"]

INTRODUCTION = """# Every option

Each option of `train.py` and `evaluate.py`: its full name, its default value, and what it does. This page is
generated from the comments of the files in `configs/`; `python train.py --cfg job` prints the values that a
command would use.

- `group=file` chooses a file of a group: `model=big`, `data/cache=memory`.
- `key=value` sets one value: `train.max_steps=2000`. A key that no file has yet needs a plus sign:
  `+data.filters.author.deny=[someone]`.
- `null` is no value. A default such as `${train.max_steps}` follows another option until it is set.
- An `experiment` or `debug` file holds deltas: the table lists the values that it changes.
"""


def options_page(configs: Path) -> str:
    """The page, as Markdown: the two programs first, then a section for each group."""
    parts = [INTRODUCTION]
    groups: dict[str, list[Path]] = {}
    for path in sorted(configs.rglob("*.yaml")):
        groups.setdefault("/".join(path.relative_to(configs).parts[:-1]), []).append(path)
    for group, paths in sorted(groups.items()):
        title = f"Group `{group}`" if group else "The two programs"
        parts.append(f"\n## {title}\n")
        for path in paths:
            parts += _section(read_config(path, configs))
    return "\n".join(parts) + "\n"


def _section(file: ConfigFile) -> Iterator[str]:
    yield f"\n### `{file.choice}`\n"
    for line in file.description:  # a command stands on a line of its own
        yield f"\n`{line}`\n" if line.startswith("python ") else _escaped(line)
    if file.options:
        yield "\n| option | default | |"
        yield "|---|---|---|"
        for option in file.options:
            default = option.default.replace("|", "\\|")
            yield f"| `{option.key}` | {f'`{default}`' if default else ''} | {_escaped(option.comment)} |"


def _escaped(text: str) -> str:
    """A comment as Markdown that shows its characters as they are; what stands in backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text.replace("|", "&#124;"))
    return "".join(part if part.startswith("`") else re.sub(r"[<>*_\[\]]", _entity, part) for part in parts)


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


if __name__ == "__main__":
    print(options_page(Path(__file__).parents[2] / "configs"))
