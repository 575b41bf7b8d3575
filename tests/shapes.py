"""What checks the shapes in signatures while tests run, and nothing else in them.

Of `def f(images: Float[Tensor, "B V 3 H W"], cells: tuple[int, int])` the first is checked: configurations
hand over lists where a tuple is meant, and tests stand-ins, and neither is a mistake. A function without a
shape is left as it is: jaxtyping binds the arguments of each call of those that it wraps, and a run of a
micro network makes 20,000 calls.
"""

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook, install_import_hook

_SHAPE = r"(?:Bool|Float|Float32|Float64|Int|Int16|Int32|Int64|UInt8|Num|Shaped)\["
_SHAPED = re.compile(rf"\b{_SHAPE}")
_ALIAS = re.compile(rf"^(\w+) = {_SHAPE}", re.MULTILINE)
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # whole numbers do for floats


def checked_shapes(function: Callable) -> Callable:
    """The function, which raises where an argument or what it returns has another shape than it says."""
    annotations = getattr(function, "__annotations__", {})
    function.__annotations__ = {
        name: hint
        for name, hint in annotations.items()
        if _SHAPED.search(hint if isinstance(hint, str) else repr(hint))
    }
    return _check(function)


def aliases(sources: Sequence[str]) -> set[str]:
    """Names that modules give to shapes: `Frames` of `Frames = UInt8[ndarray, "F H W 3"]`."""
    return {name for source in sources for name in _ALIAS.findall(source)}


class _ShapedAlone(_import_hook.JaxtypingTransformer):
    """Decorates functions with shapes in their signatures; of classes all, for dataclasses inherit fields."""

    aliases: frozenset[str] = frozenset()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:  # noqa: N802 - ast's name
        if self.has_shapes(node):
            return super().visit_FunctionDef(node)
        self.generic_visit(node)
        return node

    def has_shapes(self, function: ast.FunctionDef) -> bool:
        """Whether a shape, or the name of one, stands in the signature."""
        arguments = [node.annotation for node in ast.walk(function.args) if isinstance(node, ast.arg)]
        hints = [ast.unparse(hint) for hint in (*arguments, function.returns) if hint is not None]
        return any(_SHAPED.search(hint) or self.aliases & set(re.findall(r"\w+", hint)) for hint in hints)


def install(package: Path) -> None:
    """Check the shapes of a package's modules, none of which is imported yet."""
    # By module, for Triton reads its kernels' own source.
    paths = [path for path in package.rglob("*.py") if path.parent.name != "triton_kernels"]
    _ShapedAlone.aliases = frozenset(aliases([path.read_text(encoding="utf-8") for path in paths]))
    _import_hook.JaxtypingTransformer = _ShapedAlone
    names = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for path in paths
        if path.name != "__init__.py"
    ]
    install_import_hook(names, f"{__name__}.{checked_shapes.__name__}")
