"""Curves of training logs: losses, scores and learning rate, one panel each."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from dtrain.cli.report.caffe_log import Row, TrainingLog
from dtrain.errors import BackendError, ConfigError, DataError

# Okabe and Ito's colours, told apart by colour-blind readers too
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SCORE_WORDS: Final = ("acc", "top", "precision", "recall", "map", "iou")
FORMATS: Final = (".png", ".svg", ".pdf")
PANELS: Final = ("loss", "score", "lr")
AXIS_NAMES: Final = {"loss": "loss", "score": "accuracy", "lr": "learning rate"}
LOG_SCALE_FROM: Final = 10.0  # ratio of the largest to the smallest learning rate

_WIDTH_IN, _PANEL_IN, _TITLE_IN = 8.0, 2.7, 0.6
_STYLE: Final = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "dtrain",  # the same log gives the same bytes
}


@final
@dataclass(frozen=True)
class Curve:
    """One line of a panel; a faint one is the noise behind its smoothed twin."""

    panel: str
    label: str
    x: list[float]
    y: list[float]
    is_test: bool = False
    is_faint: bool = False


def curves_of(log: TrainingLog, against: str) -> list[Curve]:
    """The curves of one log against "iteration" or "seconds"."""
    curves = []
    smoothed = _curve("loss", "train loss", log.loss, "loss", against)
    names = _output_names(log.train)
    for name in names:
        panel = _panel_of(name)
        raw = _curve(panel, f"train {name}", log.train, name, against)
        twin = panel == "loss" and name == names[0] and bool(smoothed.y)
        if twin and (raw.x, raw.y) == (smoothed.x[: len(raw.x)], smoothed.y[: len(raw.y)]):
            continue  # average_loss is 1: both are one curve
        curves.append(Curve(panel, raw.label, raw.x, raw.y, is_faint=panel == "loss" and bool(smoothed.y)))
    if smoothed.y:
        curves.append(smoothed)
    for net, rows in sorted(log.test.items()):
        prefix = "test" if len(log.test) == 1 else f"test #{net}"
        for name in _output_names(rows):
            raw = _curve(_panel_of(name), f"{prefix} {name}", rows, name, against)
            curves.append(Curve(raw.panel, raw.label, raw.x, raw.y, is_test=True))
    rated = [row for row in (log.loss or log.train) if not math.isnan(row.lr)]
    if rated:
        x, y = _points(rated, [row.lr for row in rated], against)
        curves.append(Curve("lr", "learning rate", x, y))
    return curves


def _output_names(rows: Sequence[Row]) -> list[str]:
    """Names of single values; the further values of a vector are left to parse_log."""
    names = dict.fromkeys(name for row in rows for name in row.outputs)
    return [name for name in names if "[" not in name and f"{name}[1]" not in names]


def _panel_of(name: str) -> str:
    lowered = name.lower()
    return "score" if "loss" not in lowered and any(word in lowered for word in SCORE_WORDS) else "loss"


def _curve(panel: str, label: str, rows: Sequence[Row], name: str, against: str) -> Curve:
    told = [row for row in rows if name in row.outputs]
    x, y = _points(told, [row.outputs[name] for row in told], against)
    return Curve(panel, label, x, y)


def _points(rows: Sequence[Row], values: Sequence[float], against: str) -> tuple[list[float], list[float]]:
    """A gap where a resumed run goes back to an earlier iteration."""
    x: list[float] = []
    y: list[float] = []
    for row, value in zip(rows, values, strict=True):
        place = row.seconds if against == "seconds" else float(row.iteration)
        if x and place < x[-1]:
            x.append(place)
            y.append(math.nan)
        x.append(place)
        y.append(value)
    return x, y


def draw(logs: Mapping[str, TrainingLog], out: Path, *, against: str, title: str, log_loss: bool) -> None:
    """Write the picture of these logs by name. Raises BackendError where matplotlib is not installed."""
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"-o must end in one of {', '.join(FORMATS)}, got {out}")
    matplotlib = _matplotlib("matplotlib")
    curves = {name: curves_of(log, against) for name, log in logs.items()}
    panels = [p for p in PANELS if any(curve.panel == p for found in curves.values() for curve in found)]
    scale, unit = _unit(curves) if against == "seconds" else (1.0, "iteration")
    with matplotlib.rc_context(_STYLE):
        height = _PANEL_IN * len(panels) + (_TITLE_IN if title else 0)
        figure = _matplotlib("matplotlib.figure").Figure(figsize=(_WIDTH_IN, height), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, axis in zip(panels, axes, strict=True):
            _draw_panel(axis, panel, curves, scale, log_loss)
        axes[-1].set_xlabel(unit)
        figure.align_ylabels(axes)
        if title:
            figure.suptitle(title, fontsize=12, fontweight="bold", x=0.02, ha="left")
        try:
            figure.savefig(out, dpi=150, metadata={"Date": None} if out.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise DataError(f"{out}: must be writable, got {error.strerror or error}") from error


def _draw_panel(
    axis: Any, panel: str, curves: Mapping[str, Sequence[Curve]], scale: float, log_loss: bool
) -> None:
    """One log: a colour for each curve. Several: a colour for each log, test curves dashed beside others."""
    lone = len(curves) == 1
    has_training = any(c.panel == panel and not c.is_test for found in curves.values() for c in found)
    values = []
    for place, (name, found) in enumerate(curves.items()):
        mine = [curve for curve in found if curve.panel == panel]
        for k, curve in enumerate(mine):
            colour = PALETTE[(_place(mine, k) if lone else place) % len(PALETTE)]
            dashed = curve.is_test and not lone and has_training
            label = curve.label if lone else f"{name}: {curve.label}" if panel != "lr" else name
            axis.plot(
                [value / scale for value in curve.x],
                curve.y,
                label="_hidden" if curve.is_faint else label,
                color=colour,
                alpha=0.25 if curve.is_faint else 1.0,
                linewidth=1.0 if curve.is_faint else 1.7,
                linestyle="--" if dashed else "-",
                marker="o" if curve.is_test and len(curve.x) <= 60 else None,
                markersize=3.2,
                drawstyle="steps-post" if panel == "lr" else "default",
            )
            values += [value for value in curve.y if math.isfinite(value)]
    axis.set_ylabel(AXIS_NAMES[panel])
    axis.margins(x=0.01)
    if _wants_log_scale(panel, values, log_loss):
        axis.set_yscale("log")
    if not (lone and panel == "lr"):
        axis.legend(loc="best")


def _place(mine: Sequence[Curve], k: int) -> int:
    """The colour of curve k: test curves never take the first one, and a faint one has its twin's."""
    training = [i for i, curve in enumerate(mine) if not curve.is_test and not curve.is_faint]
    if mine[k].is_test:
        return max(1, len(training)) + [i for i, curve in enumerate(mine) if curve.is_test].index(k)
    return training.index(k) if k in training else 0


def _wants_log_scale(panel: str, values: Sequence[float], log_loss: bool) -> bool:
    if not values or min(values) <= 0:
        return False
    return log_loss if panel == "loss" else panel == "lr" and max(values) / min(values) >= LOG_SCALE_FROM


def _unit(curves: Mapping[str, Sequence[Curve]]) -> tuple[float, str]:
    """Seconds in a unit that keeps the numbers short."""
    longest = max((x for found in curves.values() for curve in found for x in curve.x), default=0.0)
    if longest >= 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if longest >= 600 else (1.0, "seconds")


def _matplotlib(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BackendError(
            "plot: matplotlib must be installed, got no such package; pip install 'dtrain[plot]'"
        ) from None
