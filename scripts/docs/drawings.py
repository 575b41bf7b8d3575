"""The drawings of the pages, as SVG: camera conventions, and how a training step is made.

    python scripts/docs/drawings.py docs/images

Lines of the camera drawing are projected from the coordinates that `lgm.cameras` uses, so that the drawing
shows what the program does.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch

from lgm.cameras import Cameras

Point = tuple[float, float]
RED, GREEN, BLUE, GREY, DARK = "#c62828", "#2e7d32", "#1565c0", "#8a8a8a", "#222222"
FONT = "font-family='Helvetica, Arial, sans-serif'"
RADIUS, REACH = 1.5, 0.6  # of the cameras' orbit, and of an object


def text(at: Point, words: str, size: int = 13, color: str = DARK, anchor: str = "middle") -> str:
    """SVG text at a point."""
    return (
        f"<text x='{at[0]:.1f}' y='{at[1]:.1f}' {FONT} font-size='{size}' fill='{color}' "
        f"text-anchor='{anchor}'>{escape(words)}</text>"
    )


def line(points: Sequence[Point], color: str, width: float = 1.5, more: str = "") -> str:
    """An SVG polyline."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='{width}' {more}/>"


def arrow(start: Point, end: Point, color: str, width: float = 2) -> str:
    """A line with two wings at its end."""
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    wings = [  # 9 units long, 0.4 rad off the line
        (end[0] - 9 * math.cos(angle + turn), end[1] - 9 * math.sin(angle + turn)) for turn in (0.4, -0.4)
    ]
    return line([start, end], color, width) + line([wings[0], end, wings[1]], color, width)


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """An SVG document with a title for screen readers."""
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img'>"
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>", ""])


class Viewer:
    """A parallel projection of the world (+y up) to the page, from an azimuth and an elevation."""

    def __init__(self, azimuth_deg: float, elevation_deg: float, scale: float, middle: Point) -> None:
        pose = Cameras.orbit([elevation_deg], [azimuth_deg]).c2w[0].double()
        # A parallel projection needs the camera's axes alone: a distance would change nothing.
        self.right, self.down = pose[:3, 0], pose[:3, 1]
        self.scale, self.middle = scale, middle

    def __call__(self, point: Sequence[float]) -> Point:
        p = torch.tensor([float(value) for value in point], dtype=torch.float64)
        x, y = float(self.right @ p), float(self.down @ p)
        return self.middle[0] + self.scale * x, self.middle[1] + self.scale * y


def frustum(viewer: Viewer, azimuth_deg: float, elevation_deg: float, color: str) -> list[str]:
    """A small pyramid at a camera of the orbit, open towards what it sees."""
    c2w = Cameras.orbit([elevation_deg], [azimuth_deg], radius=RADIUS).c2w[0].double()
    tip = c2w[:3, 3]
    corners = [
        # Columns of c2w are right, down and forward; 0.457 is the tangent of half of 49.1 degrees.
        tip + 0.34 * (c2w[:3, 2] + 0.457 * (x * c2w[:3, 0] + y * c2w[:3, 1]))
        for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    drawn = [viewer(corner) for corner in corners]
    edges = [line([viewer(tip), corner], color, 1.2) for corner in drawn]
    return [*edges, line([*drawn, drawn[0]], color, 1.2)]


def world_drawing(viewer: Viewer) -> list[str]:
    """The orbit, the world's axes, the object and the canonical cameras."""
    parts = []
    ring = [
        (math.sin(a) * RADIUS, 0.0, math.cos(a) * RADIUS) for a in torch.linspace(0, 2 * math.pi, 73).tolist()
    ]
    parts.append(line([viewer(p) for p in ring], GREY, 1, "stroke-dasharray='4 4'"))
    middle, edge = viewer((0, 0, 0)), REACH * viewer.scale
    parts.append(
        f"<circle cx='{middle[0]:.1f}' cy='{middle[1]:.1f}' r='{edge:.1f}' fill='#f3e5c8' stroke='#b08d57'/>"
    )
    for axis, color, name, dx, dy in (
        ((1, 0, 0), RED, "+x", 4, 18),
        ((0, 1, 0), GREEN, "+y up", 0, -8),
        ((0, 0, 1), BLUE, "+z", 18, 8),
    ):
        end = viewer([0.9 * value for value in axis])
        parts += [arrow(middle, end, color), text((end[0] + dx, end[1] + dy), name, 13, color)]
    for azimuth, dx, dy in ((0, -30, 30), (90, 46, 30), (180, 74, -6), (270, -58, 24)):
        parts += frustum(viewer, azimuth, 0, DARK)
        at = viewer((math.sin(math.radians(azimuth)) * RADIUS, 0, math.cos(math.radians(azimuth)) * RADIUS))
        parts.append(text((at[0] + dx, at[1] + dy), f"azimuth {azimuth}°"))
    arc = [
        # Up from azimuth 270, which is at -x.
        (-math.cos(e) * RADIUS, math.sin(e) * RADIUS, 0.0)
        for e in torch.linspace(0, math.radians(50), 20).tolist()
    ]
    parts.append(line([viewer(p) for p in arc], GREY, 1, "stroke-dasharray='4 4'"))
    parts += frustum(viewer, 270, 50, GREY)
    at = viewer(arc[-1])
    parts.append(text((at[0] - 10, at[1] - 12), "elevation +50°: above", 13, GREY, "start"))
    return parts


def camera_drawing(left: float, top: float) -> list[str]:
    """A camera from behind, and its image with the first pixel."""
    tip, scale = (left + 70, top + 84), 62
    parts = [text((left + 110, top - 26), "camera axes (OpenCV)", 14)]
    image = [(left + 126, top + 20), (left + 226, top + 4), (left + 226, top + 118), (left + 126, top + 142)]
    parts += [line([tip, corner], GREY, 1) for corner in image]
    parts.append(line([*image, image[0]], GREY, 1.2))
    forward, right, down = (
        (tip[0] + 1.3 * scale, tip[1] - 6),
        (tip[0] + 48, tip[1] + 30),
        (tip[0], tip[1] + scale),
    )
    for end, color, name, dx, dy in (
        (forward, BLUE, "+z forward", 36, -8),
        (right, RED, "+x right", 32, 14),
        (down, GREEN, "+y down", 0, 18),
    ):
        parts += [arrow(tip, end, color), text((end[0] + dx, end[1] + dy), name, 13, color)]
    grid_left, grid_top, side = left + 40, top + 216, 34
    parts.append(text((left + 110, grid_top - 14), "pixels", 14))
    for index in range(5):
        x, y = grid_left + index * side, grid_top + index * side * 0.75
        parts.append(line([(x, grid_top), (x, grid_top + 3 * side)], GREY, 1))
        if index < 4:
            y = grid_top + index * side
            parts.append(line([(grid_left, y), (grid_left + 4 * side, y)], GREY, 1))
    center = (grid_left + side / 2, grid_top + side / 2)
    parts.append(f"<circle cx='{center[0]}' cy='{center[1]}' r='3' fill='{DARK}'/>")
    parts.append(line([center, (grid_left - 4, grid_top + 3 * side + 14)], GREY, 1))
    parts.append(
        text(
            (grid_left - 20, grid_top + 3 * side + 28),
            "pixel (0, 0): centre at (0.5, 0.5)",
            13,
            DARK,
            "start",
        )
    )
    return parts


def cameras_svg() -> str:
    """The drawing of camera conventions for the documentation."""
    viewer = Viewer(azimuth_deg=32, elevation_deg=26, scale=118, middle=(262, 232))
    parts = [
        text((262, 24), "world: +y up, cameras on an orbit of radius 1.5, object within 0.6", 14),
        *world_drawing(viewer),
        *camera_drawing(540, 78),
    ]
    return svg(800, 440, "Axes of world and camera, azimuth and elevation, pixels", parts)


STAGES = (
    ("shards", ["tar files, index.json", "images, cameras"], "lgm/data"),
    ("load", ["choose views, decode", "in loader processes"], "lgm/data"),
    ("prepare", ["resize, over white,", "first view's frame, augment"], "lgm/preparation"),
    ("network", ["images + Plücker rays", "U-Net over all views"], "lgm/models"),
    ("splat map", ["14 numbers per pixel:", "one Gaussian each"], "lgm/models"),
    ("Gaussians", ["position, scale, rotation,", "opacity, colour; float32"], "lgm/gaussians"),
    ("render", ["all target views of", "all scenes in one call"], "lgm/rendering"),
    ("loss, step", ["colour, alpha, LPIPS;", "AdamW, EMA"], "lgm/losses, lgm/training"),
)


def pipeline_svg() -> str:
    """Two rows of four boxes, so that it can be read on a telephone."""
    width, height, gap, left, top = 178, 92, 20, 14, 16
    parts = []
    for number, (name, words, room) in enumerate(STAGES):
        row, column = divmod(number, 4)
        x, y = left + column * (width + gap), top + row * (height + 46)
        color = "#e3edf9" if number < 3 else "#fdf0dc" if number < 6 else "#e5f3e6"
        parts.append(
            f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='8' "
            f"fill='{color}' stroke='#9aa4b0'/>"
        )
        parts.append(text((x + width / 2, y + 23), name, 16))
        parts += [text((x + width / 2, y + 44 + 16 * i), words_, 12) for i, words_ in enumerate(words)]
        parts.append(text((x + width / 2, y + 82), room, 10, "#5f6a76"))
        if column < 3:
            parts.append(
                arrow((x + width + 2, y + height / 2), (x + width + gap - 2, y + height / 2), DARK, 1.6)
            )
    turn_x, first, second = left + 3.5 * width + 3 * gap, top + height, top + height + 46
    middle = (first + second) / 2
    start_x = left + width / 2
    parts.append(
        line([(turn_x, first + 2), (turn_x, middle), (start_x, middle), (start_x, second - 4)], DARK, 1.6)
    )
    parts.append(arrow((start_x, middle), (start_x, second - 2), DARK, 1.6))
    return svg(800, 2 * height + 46 + 2 * top, "How a training step is made", parts)


DRAWINGS = {"cameras.svg": cameras_svg, "pipeline.svg": pipeline_svg}


def main(arguments: Sequence[str]) -> int:
    """Run the command; see --help."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python scripts/docs/drawings.py <folder>\n")
        return 2
    for name, draw in DRAWINGS.items():
        (Path(arguments[0]) / name).write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
