"""The logarithm of a splat's alpha at every pixel of a tile, as one matrix product.

log(opacity) - ½ · offsetᵀ · conic · offset is a polynomial of degree two in the pixel's position: six
coefficients a splat times six monomials a pixel. Positions count from the tile's centre, which keeps
the polynomial's terms, and with them float32's rounding, small.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def exponents(shape: Float[Tensor, "S 6"], tile_size: int, out: Float[Tensor, "S P"]) -> Float[Tensor, "S P"]:
    """log(alpha) of S splats at a tile's P pixels, into `out` [S, P].

    shape: x, y (pixels from the tile's centre), conic_xx, conic_xy, conic_yy (1/px²), log(opacity).
    """
    x, y, xx, xy, yy, log_opacity = shape.unbind(1)
    slope_x = xx * x + xy * y
    slope_y = xy * x + yy * y
    # The expansion of log(opacity) - ½ (p - c)ᵀ · conic · (p - c) in powers of p: -½ pᵀ·conic·p, +
    # p·(conic·c), and this.
    constant = log_opacity - 0.5 * (x * slope_x + y * slope_y)
    coefficients = torch.stack([-0.5 * xx, -xy, -0.5 * yy, slope_x, slope_y, constant], dim=1)  # [S, 6]
    return torch.mm(coefficients, monomials(tile_size, shape.dtype, shape.device), out=out)


def exponents_backward(shape: Float[Tensor, "S 6"], grad: Float[Tensor, "S P"]) -> Float[Tensor, "S 6"]:
    """The gradient of `exponents` with respect to `shape` [S, 6], from that of its output [S, P]."""
    tile_size = round(grad.shape[1] ** 0.5)
    # Σ over pixels of gradient × monomial: all that the six derivatives need of the pixels.
    moments = grad @ monomials(tile_size, shape.dtype, shape.device).T  # [S, 6]
    x, y, xx, xy, yy, _ = shape.unbind(1)
    m_xx, m_xy, m_yy, m_x, m_y, m_1 = moments.unbind(1)
    # Moments about the splat's centre instead of the tile's.
    c_x, c_y = m_x - x * m_1, m_y - y * m_1
    c_xx = m_xx - x * (m_x + c_x)
    c_yy = m_yy - y * (m_y + c_y)
    c_xy = m_xy - x * m_y - y * c_x
    return torch.stack(
        [xx * c_x + xy * c_y, xy * c_x + yy * c_y, -0.5 * c_xx, -c_xy, -0.5 * c_yy, m_1], dim=1
    )


@lru_cache(maxsize=16)
def monomials(tile_size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "6 P"]:
    """x², xy, y², x, y, 1 at the pixels of a tile [6, P], row by row, in pixels from the tile's centre."""
    offsets = torch.arange(tile_size, dtype=dtype, device=device) - 0.5 * (tile_size - 1)
    y, x = (axis.flatten() for axis in torch.meshgrid(offsets, offsets, indexing="ij"))
    return torch.stack([x * x, x * y, y * y, x, y, torch.ones_like(x)])
