"""Shapes in signatures are checked while tests run, and only then."""

from pathlib import Path

from jaxtyping import install_import_hook

from tests import shapes

_LGM = Path(__file__).parents[1] / "lgm"
# By module, for Triton reads its kernels' own source.
_MODULES = [
    ".".join(path.relative_to(_LGM.parent).with_suffix("").parts)
    for path in _LGM.rglob("*.py")
    if path.name != "__init__.py" and path.parent.name != "triton_kernels"
]
install_import_hook(_MODULES, f"{shapes.__name__}.{shapes.checked.__name__}")
