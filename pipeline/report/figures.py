"""The report's pictures, as matplotlib figures; the same functions draw MLflow's."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]

PALETTE = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")
INK, FAINT = "#20242b", "#c9ced6"
matplotlib.rcParams.update(
    {
        "font.size": 9.5,
        "font.family": "DejaVu Sans",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "grid.color": "#eceff3",
        "axes.axisbelow": True,
        "legend.frameon": False,
        "svg.hashsalt": "resnet-study",
    }
)


def svg(figure: Figure) -> str:
    """Returns the figure as an <svg> element."""
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def png(figure: Figure, path: Path) -> Path:
    """Writes the figure as PNG and returns its path."""
    figure.savefig(path, dpi=130, bbox_inches="tight")
    return path


def _colours(depths: Sequence[int]) -> dict[int, str]:
    return {depth: PALETTE[i % len(PALETTE)] for i, depth in enumerate(sorted(set(depths)))}


def curves(rows: Sequence[Row]) -> Figure:
    """Figure 6 of the paper: error by update, plain left, residual right; val bold, train thin."""
    kinds = [kind for kind in ("plain", "residual") if any(row["kind"] == kind for row in rows)]
    figure = Figure(figsize=(5.2 * len(kinds), 3.9), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    colours = _colours([row["depth"] for row in rows])
    for axis, kind in zip(axes, kinds, strict=True):
        seen: list[int] = []
        for row in (row for row in rows if row["kind"] == kind):
            style = ("-", "--", ":")[min(seen.count(row["depth"]), 2)]
            _curve(axis, row, colours[row["depth"]], row["name"], style)
            seen.append(row["depth"])
        axis.set(title=f"{kind} networks", xlabel="update", ylim=(0, 100))
        axis.legend(loc="best", title="bold: validation, thin: training", framealpha=0.8)
    axes[0].set_ylabel("error (%)")
    return figure


def curve(row: Row) -> Figure:
    """The error and the learning rate of one training by update."""
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _curve(above, row, PALETTE[0], "validation")
    above.set(title=row["name"], ylabel="error (%)", ylim=(0, 100))
    above.legend(title="thin: training, on augmented images")
    below.plot(*_series(row, "lr"), color=PALETTE[2])
    below.set(xlabel="update", ylabel="learning rate")
    return figure


def _series(row: Row, name: str) -> tuple[list[float], list[float]]:
    return [line["update"] for line in row["history"]], [line[name] for line in row["history"]]


def _curve(axis: Axes, row: Row, colour: str, label: str, style: str = "-") -> None:
    axis.plot(
        *_series(row, "train_error_pct"), color=colour, linewidth=0.9, alpha=0.75, linestyle=style
    )
    axis.plot(
        *_series(row, "val_error_pct"), color=colour, linewidth=2.1, label=label, linestyle=style
    )


def test_errors(rows: Sequence[Row], ensemble: dict[str, Any]) -> Figure:
    """Test error of every row and of both ensembles with 95 % intervals."""
    entries = [(row["name"], row["scores"], row["kind"]) for row in rows]
    entries += [
        (f"ensemble ({kind})", ensemble[kind], "ensemble") for kind in ("declared", "greedy")
    ]
    entries.reverse()
    colours = {"plain": PALETTE[2], "residual": PALETTE[0], "ensemble": PALETTE[4]}
    figure = Figure(figsize=(7.2, 0.55 * len(entries) + 0.9), layout="constrained")
    axis = figure.subplots()
    for place, (_, scores, kind) in enumerate(entries):
        error, (low, high) = scores["test_error_pct"], scores["test_error_pct_ci95"]
        axis.barh(place, error, color=colours[kind], height=0.62)
        axis.plot([low, high], [place, place], color=INK, linewidth=1.4)
        axis.annotate(
            f"{error:.1f}",
            (max(high, error), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axis.set_yticks(range(len(entries)), [name for name, _, _ in entries])
    axis.set(xlabel="test error (%), line: 95 % interval over images", xlim=(0, None))
    axis.grid(axis="y", visible=False)
    return figure


def search(trials: Sequence[dict[str, str]]) -> Figure:
    """The trials of the search: validation error by base learning rate."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axis = figure.subplots()
    shapes = sorted({trial["shape"] for trial in trials})
    for colour, shape in zip(PALETTE, shapes, strict=False):
        for status, face in (("complete", colour), ("stopped", "none")):
            points = [
                (float(trial["base_lr"]), float(trial["val_error_pct"]))
                for trial in trials
                if trial["shape"] == shape and trial["status"] == status and trial["val_error_pct"]
            ]
            if points:
                rates, errors = zip(*points, strict=True)
                axis.scatter(
                    rates, errors, s=46, facecolors=face, edgecolors=colour, linewidths=1.6,
                    label=f"{shape}, {'to the end' if status == 'complete' else 'stopped early'}",
                )  # fmt: skip
    best = trials[0]
    axis.annotate(
        "chosen", (float(best["base_lr"]), float(best["val_error_pct"])), xytext=(9, 9),
        textcoords="offset points", fontweight="bold", color=INK,
    )  # fmt: skip
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.set(xlabel="base learning rate", ylabel="last validation error (%)")
    axis.margins(0.12)
    axis.legend()
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix: true classes down, predicted across, shares of each true class."""
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.6, 0.4 * len(classes) + 1)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                dark = shares[row, column] > 0.5
                axis.text(
                    column,
                    row,
                    count,
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else INK,
                )
        axis.set_xticks(range(len(classes)), classes, rotation=90)
        axis.set_yticks(range(len(classes)), classes)
    axis.grid(visible=False)
    axis.set(title=title, xlabel="predicted", ylabel="true")
    return figure
