"""Keep schedules as the native core takes them."""

from __future__ import annotations

from typing import Any, Optional

from ..schedule.keep_schedule import QUESTION, KeepSchedule
from .library import ffi, lib


def native_schedule(schedule: Optional[KeepSchedule]) -> tuple[Any, list[Any]]:
    """The C struct, and what must stay alive while it is read."""
    if schedule is None:
        return ffi.NULL, []
    points = ffi.new("lazy_point[]", len(schedule.points))
    keep_alive = [points]
    for out, point in zip(points, schedule.points):
        out.il, out.keep, out.pool = point.il, point.keep, point.pool
        out.n_query = 0 if point.n_query == QUESTION else int(point.n_query)
        out.n_layers, out.mass, out.keep_min = point.n_layers, point.mass, point.keep_min
        out.query_max = point.query_max
        if point.layer_heads is not None:
            layers = ffi.new("int32_t[]", [il for il, _ in point.layer_heads])
            heads = ffi.new("int32_t[]", [head for _, head in point.layer_heads])
            keep_alive += [layers, heads]
            out.heads, out.head_layers, out.n_heads = heads, layers, len(point.layer_heads)
    native = ffi.new("lazy_schedule *")
    native.version, native.points, native.n_points = lib.LAZY_VERSION, points, len(schedule.points)
    native.n_sink, native.min_prompt, native.max_revive = (schedule.n_sink, schedule.min_prompt, schedule.max_revive)
    native.revive_margin = schedule.revive_margin
    native.mean_revive = schedule.mean_revive
    native.decode_cached, native.dense_unasked = schedule.decode_cached, schedule.dense_unasked
    return native, keep_alive
