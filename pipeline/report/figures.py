"""The report's pictures, as matplotlib figures; the same functions draw those for MLflow."""

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
History = Sequence[dict[str, Any]]

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


def curves(rows: Sequence[Row], groups: Sequence[Row]) -> Figure:
    """As figure 6 of the paper: error by update, plain left, residual right; val bold, train thin.

    A network with several seeds is drawn as their mean, with a band of one standard deviation.
    """
    histories = {row["name"]: row["history"] for row in rows}
    kinds = [
        kind
        for kind in ("plain", "residual", "other")
        if any(group["kind"] == kind for group in groups)
    ]
    figure = Figure(figsize=(5.2 * len(kinds), 3.9), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    colours = _colours([group["depth"] for group in groups])
    for axis, kind in zip(axes, kinds, strict=True):
        seen: list[int] = []
        for group in (group for group in groups if group["kind"] == kind):
            style = ("-", "--", ":", "-.")[seen.count(group["depth"]) % 4]
            seeds = [histories[name] for name in group["rows"]]
            label = group["name"] + (f" ({len(seeds)} seeds)" if len(seeds) > 1 else "")
            _curve(axis, seeds, colours[group["depth"]], label, style)
            seen.append(group["depth"])
        axis.set(title=f"{kind} networks", xlabel="update", ylim=(0, 100))
        axis.legend(loc="best", title="bold: validation, thin: training", framealpha=0.8)
    axes[0].set_ylabel("error (%)")
    return figure


def curve(row: Row) -> Figure:
    """The error and the learning rate of one training by update."""
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _curve(above, [row["history"]], PALETTE[0], "validation")
    above.set(title=row["name"], ylabel="error (%)", ylim=(0, 100))
    above.legend(title="thin: training, on augmented images")
    lines = row["history"]
    below.plot([line["update"] for line in lines], [line["lr"] for line in lines], color=PALETTE[2])
    below.set(xlabel="update", ylabel="learning rate")
    return figure


def _curve(axis: Axes, seeds: Sequence[History], colour: str, label: str, style: str = "-") -> None:
    """Draws training thin and validation bold: the mean over seeds, a band of ± one sd."""
    updates = [line["update"] for line in seeds[0]]
    for name, width, alpha, shown in (
        ("train_error_pct", 0.9, 0.75, None),
        ("val_error_pct", 2.1, 1.0, label),
    ):
        errors = np.array([[line[name] for line in history] for history in seeds])
        mean = errors.mean(axis=0)
        axis.plot(
            updates, mean, color=colour, linewidth=width, alpha=alpha, linestyle=style, label=shown
        )
        if len(seeds) > 1:
            sd = errors.std(axis=0, ddof=1)
            axis.fill_between(updates, mean - sd, mean + sd, color=colour, alpha=0.18, linewidth=0)


def test_errors(groups: Sequence[Row], rows: Sequence[Row], ensemble: dict[str, Any]) -> Figure:
    """Test error of every network and of both ensembles with 95 % intervals; a dot for each seed."""
    errors = {row["name"]: row["scores"]["test_error_pct"] for row in rows}
    entries = [
        (
            group["name"] + (f" ({len(group['rows'])} seeds)" if len(group["rows"]) > 1 else ""),
            group["test_error_pct"]["mean"],
            group["test_error_pct"]["ci95"],
            group["kind"],
            [errors[name] for name in group["rows"]] if len(group["rows"]) > 1 else [],
        )
        for group in groups
    ]
    entries += [
        (
            f"ensemble ({kind})",
            ensemble[kind]["test_error_pct"],
            ensemble[kind]["test_error_pct_ci95"],
            "ensemble",
            [],
        )
        for kind in ("declared", "greedy")
    ]
    entries.reverse()
    colours = {
        "plain": PALETTE[2], "residual": PALETTE[0], "other": PALETTE[3], "ensemble": PALETTE[4],
    }  # fmt: skip
    figure = Figure(figsize=(7.2, 0.55 * len(entries) + 0.9), layout="constrained")
    axis = figure.subplots()
    for place, (_, error, (low, high), kind, seeds) in enumerate(entries):
        axis.barh(place, error, color=colours[kind], height=0.62)
        axis.plot([low, high], [place, place], color=INK, linewidth=1.4)
        axis.scatter(seeds, [place] * len(seeds), s=14, color="white", edgecolors=INK, zorder=3)
        axis.annotate(
            f"{error:.1f}",
            (max(high, error, *seeds), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axis.set_yticks(range(len(entries)), [entry[0] for entry in entries])
    axis.set(xlabel="test error (%), line: 95 % interval, dots: seeds", xlim=(0, None))
    axis.grid(axis="y", visible=False)
    return figure


def views(rows: Sequence[Row], ensemble: dict[str, Any]) -> Figure:
    """Test error of photographs' networks and ensembles by view: one crop, ten crops, scales."""
    entries = [(row["name"], row["scores"]) for row in rows]
    entries += [(f"ensemble ({kind})", ensemble[kind]) for kind in ("declared", "greedy")]
    entries.reverse()
    figure = Figure(figsize=(7.2, 0.42 * len(entries) + 0.9), layout="constrained")
    axis = figure.subplots()
    kinds = {"one crop": "test_", "ten crops": "test_ten_crops_", "scales": "test_scales_"}
    for number, (colour, (label, prefix)) in enumerate(zip(PALETTE, kinds.items(), strict=False)):
        for place, (_, scores) in enumerate(entries):
            height = place + 0.22 * (1 - number)
            low, high = scores[f"{prefix}error_pct_ci95"]
            axis.plot([low, high], [height, height], color=colour, linewidth=1.4)
        errors = [scores[f"{prefix}error_pct"] for _, scores in entries]
        heights = [place + 0.22 * (1 - number) for place in range(len(entries))]
        axis.scatter(errors, heights, s=26, color=colour, zorder=3, label=label)
    axis.set_yticks(range(len(entries)), [entry[0] for entry in entries])
    axis.set(xlabel="test error (%), line: 95 % interval")
    axis.grid(axis="y", visible=False)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def search(trials: Sequence[dict[str, str]]) -> Figure:
    """The trials of a search: validation error by base learning rate."""
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
    """A confusion matrix: true classes down, predicted across, colored by share of the true class."""
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
        axis.set_xticks(range(len(classes)), classes, rotation=90, parse_math=False)  # "$"
        axis.set_yticks(range(len(classes)), classes, parse_math=False)
    axis.grid(visible=False)
    axis.set(title=title, xlabel="predicted", ylabel="true")
    return figure
