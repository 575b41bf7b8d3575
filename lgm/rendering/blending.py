"""Alpha compositing: blend each tile's splats front to back, with an analytic backward pass.

All tiles advance together, a block of splats at a time; tiles whose list has ended or whose pixels
are all opaque drop out. A block is [T tiles, K splats, P pixels], about `max_pairs` numbers, and
nothing of that size outlives it: memory is bounded, in the backward pass too, which computes alphas again.

With a_k = min(0.99, exp(l_k)) (0 below 1/255), T_k = Π_{j<k} (1 - a_j) and w_k = a_k T_k, the
output is Σ_k w_k f_k. For a cotangent g and v_k = f_k · g,

    dL/da_k = T_k v_k - (Σ_{j>k} w_j v_j) / (1 - a_k),

and da_k/dl_k = exp(l_k), the cap notwithstanding: the published rasterizer lets gradients pass it.
The sum over j > k is the total, known from the output, less the terms already visited, so that
the backward pass too runs front to back and stops where the forward pass did.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lgm.rendering.exponents import exponents, exponents_backward
from lgm.rendering.precision import full_precision
from lgm.rendering.tiles import MIN_ALPHA, TileLists

# Thresholds of the published rasterizer (Kerbl et al. 2023, "3D Gaussian Splatting"): alphas are capped, so
# that 1 - alpha can be divided by, and a pixel stops before its transmittance falls below 1e-4.
MAX_ALPHA = 0.99
MIN_TRANSMITTANCE = 1e-4
# Columns of a splat's row: x, y, conic_xx, conic_xy, conic_yy, log(opacity) | r, g, b, depth.
NUM_SHAPE, NUM_FEATURES = 6, 4
# Longer blocks would mostly draw on pixels that are opaque already, shorter ones are overhead.
_MIN_SPLATS_A_BLOCK = 32
# exp of less lies far under 1/255, and exp of much less is a denormal number, which is slow.
_LOG_ZERO = -20.0


def blend(rows: Float[Tensor, "M 10"], lists: TileLists, max_pairs: int) -> Float[Tensor, "tiles 5 P"]:
    """Alpha compositing: Σ w · (r, g, b, depth, 1) at every pixel of every tile, without a background.

    rows: x, y, conic_xx, conic_xy, conic_yy, log(opacity), r, g, b, depth of every splat.
    lists: each tile's splats, front to back. max_pairs: pixel-splat pairs evaluated at a time.
    """
    return _Blend.apply(rows, lists, max_pairs)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, lists: TileLists, max_pairs: int) -> Tensor:
        output = rows.new_zeros(lists.counts.numel(), NUM_FEATURES + 1, lists.tile_size**2)
        for block in _walk(rows, lists, max_pairs, _Scratch(rows), with_excess=False):
            output[block.tiles] += block.features.transpose(1, 2) @ block.weights  # [T, 5, P]
        ctx.save_for_backward(rows, output)
        ctx.lists, ctx.max_pairs = lists, max_pairs
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        rows, output = ctx.saved_tensors
        # One more row, for the padding of lists that have ended.
        grad_rows = rows.new_zeros(rows.shape[0] + 1, rows.shape[1])
        behind = (grad_output * output).sum(1)  # Σ w v of the splats still to come, [tiles, P]
        scratch, capped = _Scratch(rows), _any_capped(rows)
        # Autograd calls backward outside of the forward pass's context, so TF32 is switched off again.
        with full_precision(rows.device.type):
            for block in _walk(rows, ctx.lists, ctx.max_pairs, scratch, with_excess=capped):
                grad = grad_output[block.tiles]  # [T, 5, P]
                grad_features = block.weights @ grad.transpose(1, 2)  # [T, K, 5]
                grad_logits = _logit_gradients(block, grad, behind, scratch)
                grad_shape = exponents_backward(block.shape, grad_logits.flatten(0, 1))
                grad_block = torch.cat([grad_shape, grad_features.flatten(0, 1)[:, :-1]], dim=1)
                grad_rows.index_add_(0, block.splats, grad_block)
        # Without the row that padded places point to.
        return grad_rows[:-1], None, None


class _Scratch:
    """Buffers for one block, by name, reused for the next: page faults took a third of a CPU's time."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._memory: dict[str, Tensor] = {}
        self.one = like.new_ones(())

    def __call__(self, name: str, shape: torch.Size | tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        if name not in self._memory or self._memory[name].numel() < size:
            self._memory[name] = self._like.new_empty(size)
        return self._memory[name][:size].view(shape)


@dataclass(frozen=True)
class _Block:
    """T tiles and their next K splats; the memory is the consumer's to overwrite until the next.

    splats: rows of the splats; one past the last row where a list has ended.
    shape: the splats' first six columns, centres relative to the tile's.
    weights: alpha times the transmittance in front of the splat.
    excess: exp(logit) / MAX_ALPHA, at least 1; None where it was not requested.
    """

    tiles: Tensor  # [T]
    splats: Tensor  # [T*K]
    shape: Tensor  # [T*K, 6]
    features: Tensor  # [T, K, 5]
    alphas: Tensor  # [T, K, P]
    weights: Tensor  # [T, K, P]
    excess: Tensor | None  # [T, K, P]


@dataclass(frozen=True)
class _Walker:
    """State of the walk over all lists: the splats, the lists, and the transmittance, which blocks update.

    table: rows and the coverage's 1, and one empty row.
    transmittance: of every pixel, in front of the splats still to come.
    """

    table: Tensor  # [M + 1, 11]
    lists: TileLists
    transmittance: Tensor  # [tiles, P]
    scratch: _Scratch
    with_excess: bool


def _walk(
    rows: Tensor, lists: TileLists, max_pairs: int, scratch: _Scratch, with_excess: bool
) -> Iterator[_Block]:
    """All tiles' lists, front to back, until they end or every pixel is opaque."""
    num_pixels = lists.tile_size**2
    transmittance = rows.new_ones(lists.counts.numel(), num_pixels)
    walker = _Walker(_with_empty_row(rows), lists, transmittance, scratch, with_excess)
    left, tiles = lists.counts.sort(descending=True)  # similar lengths share a block: little padding
    tiles, left = tiles[left > 0], left[left > 0]
    passed = 0
    while tiles.numel():
        num_splats = max(_MIN_SPLATS_A_BLOCK, max_pairs // (tiles.numel() * num_pixels))
        # A long list alone may exceed `max_pairs` by its shortest block; more tiles join only while they fit.
        tiles_a_block = max(1, max_pairs // (num_splats * num_pixels))
        for some, some_left in zip(tiles.split(tiles_a_block), left.split(tiles_a_block), strict=True):
            length = min(num_splats, int(some_left[0]))
            yield _block(walker, some, passed, length)
        passed, left = passed + num_splats, left - num_splats
        # Early termination: a tile whose every pixel is opaque is done, whatever is left of its list.
        alive = (left > 0) & (transmittance[tiles].amax(1) > 0)
        tiles, left = tiles[alive], left[alive]


def _block(walker: _Walker, tiles: Tensor, passed: int, length: int) -> _Block:
    """The next `length` splats of some tiles; moves the tiles' transmittance past them."""
    lists, scratch, transmittance = walker.lists, walker.scratch, walker.transmittance
    # Lists shorter than the block are padded with the empty row, whose alpha is below 1/255.
    splats = _next_splats(lists, tiles, passed, length, empty=walker.table.shape[0] - 1)
    gathered = walker.table.index_select(0, splats.flatten())  # [T*K, columns]
    shape, features = gathered[:, :NUM_SHAPE], gathered[:, NUM_SHAPE:]
    shape[:, :2] -= _tile_centers(lists, tiles, shape).repeat_interleave(length, dim=0)
    block_shape = (tiles.numel(), length, lists.tile_size**2)
    logits = exponents(shape, lists.tile_size, out=scratch("alphas", block_shape).flatten(0, 1))
    uncapped = logits.view(block_shape).clamp_(min=_LOG_ZERO).exp_()
    excess = None
    if walker.with_excess:
        excess = torch.div(uncapped, MAX_ALPHA, out=scratch("excess", block_shape)).clamp_(min=1)
    # In place over `uncapped`, which `excess` has been computed from above.
    alphas = torch.threshold_(uncapped.clamp_(max=MAX_ALPHA), MIN_ALPHA, 0)
    weights, transmittance[tiles] = _weights(alphas, transmittance[tiles], scratch)
    return _Block(
        tiles, splats.flatten(), shape, features.unflatten(0, (-1, length)), alphas, weights, excess
    )


def _weights(alphas: Tensor, entering: Tensor, scratch: _Scratch) -> tuple[Tensor, Tensor]:
    """Weights [T, K, P] and the transmittance [T, P] that leaves, 0 where the pixel has stopped.

    A pixel stops before the splat that would bring it under MIN_TRANSMITTANCE: that splat's alpha,
    and all behind it, become 0.
    """
    through = torch.sub(scratch.one, alphas, out=scratch("through", alphas.shape))
    through[:, 0] *= entering
    through.cumprod_(1)  # behind each splat
    weights = scratch("weights", alphas.shape)
    torch.mul(alphas[:, 0], entering, out=weights[:, 0])
    torch.mul(alphas[:, 1:], through[:, :-1], out=weights[:, 1:])
    leaving = through[:, -1].clone()
    if bool((leaving < MIN_TRANSMITTANCE).any()):
        # A cumulative product only falls, so the mask keeps a prefix of the list. `through` is overwritten.
        drawn = through.ge_(MIN_TRANSMITTANCE)
        alphas.mul_(drawn)
        weights.mul_(drawn)
        leaving.mul_(drawn[:, -1])
    return weights, leaving


def _logit_gradients(block: _Block, grad: Tensor, behind: Tensor, scratch: _Scratch) -> Tensor:
    """dL/dl [T, K, P] from the output's gradient [T, 5, P]; moves `behind` past the block."""
    alphas = block.alphas
    contributions = torch.bmm(block.features, grad, out=scratch("own", alphas.shape)).mul_(
        block.weights
    )  # w v
    after = torch.cumsum(contributions, 1, out=scratch("after", alphas.shape))
    torch.sub(behind[block.tiles][:, None], after, out=after)  # Σ_{j>k} w_j v_j
    behind[block.tiles] = after[:, -1]
    # dL/dl = w v - a / (1 - a) Σ_{j>k} w_j v_j, since da/dl = a below the cap.
    odds = torch.sub(scratch.one, alphas, out=scratch("through", alphas.shape))
    torch.div(alphas, odds, out=odds)
    grad_logits = contributions.sub_(odds.mul_(after))
    # Above the cap da/dl is exp(l) = a · excess.
    return grad_logits if block.excess is None else grad_logits.mul_(block.excess)


def _any_capped(rows: Tensor) -> bool:
    """Whether any opacity exceeds the cap, so that a splat's centre may: only then is `excess` needed."""
    return bool((rows[:, NUM_SHAPE - 1] > math.log(MAX_ALPHA)).any())


def _with_empty_row(rows: Tensor) -> Tensor:
    """Rows and the coverage's 1, [M + 1, 11]; the last row is a splat without opacity."""
    empty = rows.new_zeros(1, rows.shape[1])
    empty[0, NUM_SHAPE - 1] = _LOG_ZERO
    return torch.nn.functional.pad(torch.cat([rows, empty]), (0, 1), value=1.0)


def _next_splats(lists: TileLists, tiles: Tensor, passed: int, length: int, empty: int) -> Tensor:
    """Row numbers [T, K] of the tiles' next K splats; `empty` past the end of a list."""
    rank = passed + torch.arange(length, device=tiles.device)
    index = (lists.starts[tiles][:, None] + rank).clamp_max(lists.splat_ids.numel() - 1)
    # 64 bits: index_add_ is four times slower with shorter numbers.
    splats = lists.splat_ids.index_select(0, index.flatten()).long().view_as(index)
    return torch.where(rank < lists.counts[tiles][:, None], splats, empty)


def _tile_centers(lists: TileLists, tiles: Tensor, like: Tensor) -> Tensor:
    """x and y of the tiles' centres [T, 2], counted from the first pixel's centre."""
    column = tiles % lists.columns
    row = tiles // lists.columns % lists.rows
    corner = torch.stack([column, row], dim=1) * lists.tile_size
    return corner.to(like.dtype) + 0.5 * (lists.tile_size - 1)
