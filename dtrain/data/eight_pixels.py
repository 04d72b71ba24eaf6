"""Eight pixels of a row at a time, in vectors that LLVM does not find by itself."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_FLOAT, _LONG, _LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_HALF, _WHOLE = ir.VectorType(_FLOAT, 4), ir.VectorType(_FLOAT, 8)
_PIXEL = 3  # values


def _load(builder: Any, address: Any, kind: Any) -> Any:
    """The values from there on, which may lie anywhere."""
    found = builder.load(builder.bitcast(address, kind.as_pointer()))
    found.align = 4
    return found


def _mixed(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Lanes of a, counted from 0, and of b, which go on behind those."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_LANE, len(lanes)), lanes))


def _in_halves(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """`_mixed`, the lower halves of two wholes to the lower and the upper ones to the upper."""
    lower = [lane if lane < 4 else lane + 4 for lane in lanes]
    return _mixed(builder, a, b, [*lower, *(lane + 4 for lane in lower)])


def _everywhere(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_WHOLE, ir.Undefined)
    return _mixed(builder, builder.insert_element(nothing, value, _LANE(0)), nothing, [0] * 8)


def _two_pixels(builder: Any, line: Any, left_of: Any, shares: Any, n: int) -> Any:
    """The n-th pixel's three values and those of the fourth behind it, a half each, whose last is none.

    Between the pixel to the left and the next one.
    """
    places = [builder.load(builder.gep(left_of, [_LANE(n + half)])) for half in (0, 4)]
    sides = []
    for beyond in (0, _PIXEL):
        at = [builder.gep(line, [builder.add(place, _LONG(beyond))]) for place in places]
        lower, upper = (_load(builder, address, _HALF) for address in at)
        sides.append(_mixed(builder, lower, upper, list(range(8))))
    left, right = sides
    share = _in_halves(builder, shares, shares, [n] * 4)
    part = builder.fmul(builder.fsub(right, left), share, flags=("contract",))
    return builder.fadd(part, left, flags=("contract",))


def _eight_pixels(
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
        eight = _load(builder, shares, _WHOLE)
        pixels = [_two_pixels(builder, line, left_of, eight, n) for n in range(4)]
        firsts = [_in_halves(builder, pixels[n], pixels[n + 1], [0, 4, 1, 5]) for n in (0, 2)]
        lasts = [_in_halves(builder, pixels[n], pixels[n + 1], [2, 6, 3, 7]) for n in (0, 2)]
        channels = (
            _in_halves(builder, firsts[0], firsts[1], [0, 1, 4, 5]),
            _in_halves(builder, firsts[0], firsts[1], [2, 3, 6, 7]),
            _in_halves(builder, lasts[0], lasts[1], [0, 1, 4, 5]),
        )
        factor = _everywhere(builder, arguments[4])
        for n, (channel, out) in enumerate(zip(channels, arguments[5:], strict=True)):
            mean = _everywhere(builder, builder.load(builder.gep(means, [_LANE(n)])))
            value = builder.fmul(builder.fsub(channel, mean), factor)
            builder.store(value, builder.inttoptr(out, _WHOLE.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(line, left_of, shares, means, factor, out_0, out_1, out_2), generate


eight_pixels: Any = intrinsic(_eight_pixels)
"""eight_pixels(line, left_of, shares, means, factor, out_0, out_1, out_2), inside compiled functions.

All but the float32 `factor` are integer addresses: of a row of interleaved pixels (float32), of the places in
it of eight pixels (int64), of the shares of the pixels that follow those (float32), of three means, and of
eight values in each of three planes, which become (left + share * (right - left) - mean) * factor. It reads
seven values of the row from each place on.
"""
