"""What checks the shapes in signatures while tests run, and nothing else in them.

Of `def f(images: Float[Tensor, "B V 3 H W"], cells: tuple[int, int])` the first is checked: configurations
hand over lists where a tuple is meant, and tests stand-ins, and neither is a mistake.
"""

import re
from collections.abc import Callable

from beartype import BeartypeConf, beartype

_SHAPED = re.compile(r"\b(?:Bool|Float|Float32|Float64|Int|Int16|Int32|Int64|UInt8|Num|Shaped)\[")
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # whole numbers do for floats


def checked(function: Callable) -> Callable:
    """The function, which raises where an argument or what it returns has another shape than it says."""
    annotations = getattr(function, "__annotations__", {})
    function.__annotations__ = {
        name: hint
        for name, hint in annotations.items()
        if _SHAPED.search(hint if isinstance(hint, str) else repr(hint))
    }
    return _check(function)
