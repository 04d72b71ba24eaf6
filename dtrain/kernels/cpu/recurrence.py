"""What recurrent operators share: the part of every time step that does not depend on the step before."""

from __future__ import annotations

from dtrain.kernels.array import Plain, SyncedArray


def rows(x: Plain) -> Plain:
    """(T, N, ...) as (T N, values)."""
    return x.reshape(x.shape[0] * x.shape[1], -1)


def drive(
    x: SyncedArray,
    static: SyncedArray | None,
    w_x: SyncedArray,
    bias: SyncedArray,
    w_static: SyncedArray | None,
) -> Plain:
    """(T, N, G): x w_x' + bias, and static w_static' at every step."""
    values = x.plain()
    driven = rows(values) @ w_x.plain().T
    driven += bias.plain()
    out: Plain = driven.reshape(*values.shape[:2], -1)
    if static is not None and w_static is not None:
        out += static.plain().reshape(values.shape[1], -1) @ w_static.plain().T
    return out


def drive_back(
    diff: Plain,
    x: SyncedArray,
    static: SyncedArray | None,
    w_x: SyncedArray,
    w_static: SyncedArray | None,
    x_diff: SyncedArray | None,
    static_diff: SyncedArray | None,
    w_x_diff: SyncedArray | None,
    bias_diff: SyncedArray | None,
    w_static_diff: SyncedArray | None,
) -> None:
    """The gradient of `drive` for diff (T, N, G): overwrites x_diff and static_diff, adds to the others."""
    flat = rows(diff)
    if x_diff is not None:
        room = x_diff.plain_overwrite()
        room[...] = (flat @ w_x.plain()).reshape(room.shape)
    if w_x_diff is not None:
        w_x_diff.plain_mutable()[...] += flat.T @ rows(x.plain())
    if bias_diff is not None:
        bias_diff.plain_mutable()[...] += flat.sum(axis=0)
    if static is None or w_static is None:
        return
    over_time = diff.sum(axis=0)
    if static_diff is not None:
        room = static_diff.plain_overwrite()
        room[...] = (over_time @ w_static.plain()).reshape(room.shape)
    if w_static_diff is not None:
        values = static.plain()
        w_static_diff.plain_mutable()[...] += over_time.T @ values.reshape(values.shape[0], -1)
