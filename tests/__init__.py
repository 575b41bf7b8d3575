"""Shapes in signatures are checked while tests run, and only then."""

from pathlib import Path

from tests import shapes

shapes.install(Path(__file__).parents[1] / "lgm")
