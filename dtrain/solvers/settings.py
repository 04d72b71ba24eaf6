"""A SolverParameter together with where it was written, for errors that name file and line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.sources import SourceMap

NOT_SUPPORTED = (
    *("larc", "larc_turbo", "momentum_policy", "weight_decay_policy", "solver_data_type"),
    *("store_blobs_in_old_format", "test_and_snapshot_last_epochs"),  # so far NVCaffe's
    *("local_lr_auto", "disabled_update", "test_offset"),  # Intel Caffe's
    *("eval_type", "ap_version", "show_per_class_result"),  # SSD's
)


@final
@dataclass(frozen=True)
class Settings:
    """`source` is None for a solver that was made by a program."""

    param: pb.SolverParameter
    source: SourceMap | None = None

    def where(self, *path: str | int) -> str:
        """`file:line` of the field, of the first one if it is repeated; the file where it is not given."""
        if self.source is None:
            return "solver"
        return self.source.where(path if self.source.line(path) else (*path, 0))

    def bad(self, field: str, rule: str, got: object, remedy: str = "") -> ConfigError:
        """The error for a field that breaks a rule."""
        tail = f"; {remedy}" if remedy else ""
        told = f"{got:g}" if isinstance(got, float) else got
        return ConfigError(f"{self.where(field)}: {field} must be {rule}, got {told}{tail}")


def check(settings: Settings, num_test_nets: int) -> None:
    """Raise ConfigError for a number that no training can have, or a field that is not acted upon here."""
    param = settings.param
    for field, least in (("iter_size", 1), ("average_loss", 1), ("max_iter", 0), ("display", 0)):
        if getattr(param, field) < least:
            raise settings.bad(field, f"at least {least}", getattr(param, field))
    for field in ("snapshot", "test_interval"):
        if getattr(param, field) < 0:
            raise settings.bad(field, "at least 0", getattr(param, field))
    if len(param.test_iter) != num_test_nets:
        raise settings.bad(
            "test_iter", f"given once per test net ({num_test_nets} times)", f"{len(param.test_iter)} times"
        )
    for field in NOT_SUPPORTED:
        descriptor = param.DESCRIPTOR.fields_by_name[field]
        value = getattr(param, field)
        if value != descriptor.default_value:
            raise settings.bad(field, f"{descriptor.default_value} (nothing else is supported)", value)
