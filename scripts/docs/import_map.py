"""The map of imports between rooms, from import-linter's own graph (grimp), as a page of docs/ and its image.

    python scripts/docs/import_map.py            # writes both
    python scripts/docs/import_map.py --counts   # modules, imports, rooms, and circles among them

An arrow of the image is left out where a longer path says the same (the transitive reduction); the table
has all.
"""

from __future__ import annotations

import argparse
import sys
from html import escape
from pathlib import Path

import grimp

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGE, IMAGE = ROOT / "docs/reference/imports.md", ROOT / "docs/assets/imports.svg"
PACKAGES = ("lgm", "data_tools")
Edges = dict[str, set[str]]

_WIDTH, _ROW, _BOX = 900, 56, (118, 26)
_PAGE = """# Which room imports which

What a room may know, at a glance: arrows lead from a room to those that it imports, and all of them down. The
layers are those of the import-linter contract in `pyproject.toml`; an arrow is left out where a longer path
says the same.

![Imports between the rooms of lgm](../assets/imports.svg)

| room | imports |
|---|---|
{rows}

This page and its image are written by `python scripts/docs/import_map.py`, from import-linter's own graph; a
test holds them to the code. `--counts` prints how many modules and imports there are, and every circle of
modules that import each other. It printed, before `lgm/data` (48 modules in two folders) and `lgm/callbacks`
(22 in one) became rooms of their own, and after (commits 4b27533 and b86c253):

| | modules | imports | rooms | imports between rooms | circles of rooms |
|---|---|---|---|---|---|
| before | 346 | 1,051 | 21 | 88 | 0 |
| after | 371 | 1,092 | 24 | 101 | 0 |
"""


def graph() -> Edges:
    """Which modules each module imports."""
    # Without a cache on the disk: the map must be that of the code as it is now.
    built = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {module: built.find_modules_directly_imported_by(module) for module in built.modules}


def room(module: str) -> str:
    """`lgm.<room>`; data_tools is one."""
    parts = module.split(".")
    return parts[0] if parts[0] != "lgm" else ".".join(parts[:2])


def between_rooms(modules: Edges) -> Edges:
    """Imports between packages (rooms) from those between modules."""
    rooms: Edges = {}
    for module, imported in modules.items():
        if module != "lgm":  # it holds the version alone
            rooms.setdefault(room(module), set()).update(room(other) for other in imported if other != "lgm")
    return {name: others - {name} for name, others in rooms.items()}


def reached(edges: Edges, start: str) -> set[str]:
    """All modules that are imported, by others too; contains `start` only where it lies on a circle."""
    seen, left = set(), list(edges.get(start, ()))
    while left:
        if (name := left.pop()) not in seen:
            seen.add(name)
            left.extend(edges.get(name, ()))
    return seen


def circles(edges: Edges) -> list[list[str]]:
    """Groups that import each other, each sorted."""
    closed = {name: reached(edges, name) for name in edges}
    groups = {
        tuple(sorted({name, *(other for other in closed[name] if name in closed.get(other, ()))}))
        for name in edges
        if name in closed[name]
    }
    return [list(group) for group in sorted(groups)]


def reduced(edges: Edges) -> Edges:
    """Without what a longer path says (transitive reduction); edges must have no circle."""
    closed = {name: reached(edges, name) for name in edges}
    return {
        name: {other for other in others if not any(other in closed[middle] for middle in others - {other})}
        for name, others in edges.items()
    }


def layers() -> list[list[str]]:
    """Rows of rooms from the top down, as the contract has them."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [c for c in config["contracts"] if c.get("containers") == ["lgm"]]
    return [[name.strip(" ()") for name in row.split("|")] for row in contract["layers"]]


def page(rooms: Edges) -> str:
    """The page: one row per package with what it imports."""

    def shown(name: str) -> str:
        return f"`{name.removeprefix('lgm.')}`"

    order = {f"lgm.{name}": number for number, row in enumerate(layers()) for name in row}
    rows = [
        f"| {shown(name)} | {', '.join(shown(other) for other in sorted(rooms[name])) or '–'} |"
        for name in sorted(rooms, key=lambda name: (order.get(name, len(order)), name))
    ]
    return _PAGE.format(rows="\n".join(rows))


def image(rooms: Edges) -> str:
    """The rooms of lgm in their layers as SVG."""
    rows = [[name for name in row if f"lgm.{name}" in rooms] for row in layers()]
    rows = [row for row in rows if row]
    centre = {
        f"lgm.{name}": (_WIDTH * (index + 1) / (len(row) + 1), _ROW * number + _ROW / 2)
        for number, row in enumerate(rows)
        for index, name in enumerate(row)
    }
    width, height = _BOX
    lines = []
    for name, others in sorted(reduced({name: rooms[name] for name in centre}).items()):
        for other in sorted(others & centre.keys()):
            (x, y), (to_x, to_y) = centre[name], centre[other]
            # Straight down through a row of boxes in between: bent around them, to the nearer edge.
            bend = 70 * (1 if x <= _WIDTH / 2 else -1) if x == to_x and to_y - y > _ROW else 0
            middle = f"{(x + to_x) / 2 + 2 * bend:.0f} {(y + to_y) / 2:.0f}"
            start, end = f"{x:.0f} {y + height / 2:.0f}", f"{to_x:.0f} {to_y - height / 2:.0f}"
            lines.append(f'<path d="M{start} Q{middle} {end}"/>')
    boxes = [
        f'<rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width}" height="{height}" rx="5"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}">{escape(name.removeprefix("lgm."))}</text>'
        for name, (x, y) in centre.items()
    ]
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_ROW * len(rows)}">
<style>rect {{ fill: #eef1fb; stroke: #5c6bc0; }}
text {{ font: 13px sans-serif; text-anchor: middle; fill: #1c1e21; }}
path {{ fill: none; stroke: #90a4ae; marker-end: url(#tip); }}</style>
<rect width="100%" height="100%" style="fill: #fff; stroke: none"/>
<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path
d="M0 0 L8 4 L0 8 z" style="fill: #90a4ae; stroke: none; marker-end: none"/></marker>
{chr(10).join(lines)}
{chr(10).join(boxes)}
</svg>
"""


def counts(modules: Edges, rooms: Edges) -> str:
    """Numbers of modules, imports and import cycles."""

    def of(edges: Edges) -> str:
        groups = circles(edges)
        return f"{len(groups)} circles" + "".join(f"\n  {', '.join(group)}" for group in groups)

    return (
        f"{len(modules)} modules, {sum(map(len, modules.values()))} imports, {of(modules)}\n"
        f"{len(rooms)} rooms, {sum(map(len, rooms.values()))} imports, {of(rooms)}"
    )


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", action="store_true", help="print counts and circles, write nothing")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    modules = graph()
    rooms = between_rooms(modules)
    if options.counts:
        print(counts(modules, rooms))
        return
    PAGE.write_text(page(rooms), encoding="utf-8")
    IMAGE.write_text(image(rooms), encoding="utf-8")


if __name__ == "__main__":
    main()
