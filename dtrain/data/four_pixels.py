"""Four pixels of a row at a time, in vectors that LLVM does not find by itself."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_FLOAT, _LONG, _LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, 4)
_PIXEL = 3  # values


def _vector(builder: Any, address: Any) -> Any:
    """The four values from there on, which may lie anywhere."""
    found = builder.load(builder.bitcast(address, _VECTOR.as_pointer()))
    found.align = 4
    return found


def _mixed(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Lanes 0 to 3 of a, 4 to 7 of b."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_LANE, 4), lanes))


def _everywhere(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    return _mixed(builder, builder.insert_element(nothing, value, _LANE(0)), nothing, [0, 0, 0, 0])


def _between_pixels(builder: Any, line: Any, left_of: Any, shares: Any, n: int) -> Any:
    """The n-th pixel's three values, from that to its left and the next one; the fourth means nothing."""
    at = builder.load(builder.gep(left_of, [_LANE(n)]))
    left = _vector(builder, builder.gep(line, [at]))
    right = _vector(builder, builder.gep(line, [builder.add(at, _LONG(_PIXEL))]))
    share = _everywhere(builder, builder.load(builder.gep(shares, [_LANE(n)])))
    part = builder.fmul(builder.fsub(right, left), share, flags=("contract",))
    return builder.fadd(part, left, flags=("contract",))


def _four_pixels(
    _context: Any,
    line: Any,
    left_of: Any,
    shares: Any,
    means: Any,
    factor: Any,
    out_0: Any,
    out_1: Any,
    out_2: Any,
) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        floats, longs = _FLOAT.as_pointer(), _LONG.as_pointer()
        line, left_of, shares, means = (
            builder.inttoptr(address, kind)
            for address, kind in zip(arguments[:4], (floats, longs, floats, floats), strict=True)
        )
        pixels = [_between_pixels(builder, line, left_of, shares, n) for n in range(4)]
        firsts = [_mixed(builder, pixels[n], pixels[n + 1], [0, 4, 1, 5]) for n in (0, 2)]
        lasts = [_mixed(builder, pixels[n], pixels[n + 1], [2, 6, 3, 7]) for n in (0, 2)]
        channels = (
            _mixed(builder, firsts[0], firsts[1], [0, 1, 4, 5]),
            _mixed(builder, firsts[0], firsts[1], [2, 3, 6, 7]),
            _mixed(builder, lasts[0], lasts[1], [0, 1, 4, 5]),
        )
        factor = _everywhere(builder, arguments[4])
        for n, (channel, out) in enumerate(zip(channels, arguments[5:], strict=True)):
            mean = _everywhere(builder, builder.load(builder.gep(means, [_LANE(n)])))
            value = builder.fmul(builder.fsub(channel, mean), factor)
            builder.store(value, builder.inttoptr(out, _VECTOR.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(line, left_of, shares, means, factor, out_0, out_1, out_2), generate


four_pixels: Any = intrinsic(_four_pixels)
"""four_pixels(line, left_of, shares, means, factor, out_0, out_1, out_2), inside compiled functions.

All but the float32 `factor` are integer addresses: of a row of interleaved pixels (float32), of the places
in it of four pixels (int64), of the shares of the pixels that follow those (float32), of three means, and of
four values in each of three planes, which become (left + share * (right - left) - mean) * factor. It reads
seven values of the row from each place on.
"""
