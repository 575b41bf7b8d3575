"""The map of imports in docs/ is that of the code."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("import_map", ROOT / "scripts/docs/import_map.py")
import_map = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(import_map)


def test_page_and_image_are_current():
    rooms = import_map.between_rooms(import_map.graph())
    fix = "run python scripts/docs/import_map.py"
    assert import_map.PAGE.read_text(encoding="utf-8") == import_map.page(rooms), fix
    assert import_map.IMAGE.read_text(encoding="utf-8") == import_map.image(rooms), fix
    assert import_map.circles(rooms) == []


def test_circles_and_reduction():
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"e"}, "e": {"d"}}
    assert import_map.circles(edges) == [["d", "e"]]
    assert import_map.reduced({name: edges[name] for name in "abc"}) == {"a": {"b"}, "b": {"c"}, "c": set()}
