"""The report's tables as values; the page, the CSV files and the LaTeX tables are made from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline import paper
from pipeline.formats import as_csv
from pipeline.report.deviations import is_as_long_as_the_papers, is_trained_as_the_papers

Results = Mapping[str, Any]
Row = Mapping[str, Any]
Cell = str | int | float | None | Sequence[float]
Kind = Literal["text", "count", "number", "interval", "spread"]
"""`interval`: value, low, high; `spread`: mean, standard deviation over seeds (or null), low, high."""

PARTS = {"interval": ("", " low", " high"), "spread": ("", " sd", " low", " high")}
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A column: its heading, what its cells are, and after how many decimals they are cut."""

    heading: str
    kind: Kind = "number"
    digits: int = 1


@dataclass(frozen=True)
class Table:
    """A table: `name` for files, `title`, its columns, a tuple of cells for each line, and a note."""

    name: str
    title: str
    columns: Sequence[Column]
    lines: Sequence[Sequence[Cell]]
    note: str = ""

    def shown(self) -> list[list[tuple[str, str]]]:
        """Returns each cell as a person reads it: its value, and in parentheses what is said of it."""
        return [
            [said(column, cell) for column, cell in zip(self.columns, line, strict=True)]
            for line in self.lines
        ]

    def plain(self) -> list[str]:
        """Returns the table as lines of text in columns."""
        cells = [[column.heading for column in self.columns]]
        cells += [
            [f"{value} ({more})" if more else value for value, more in line]
            for line in self.shown()
        ]
        widths = [max(len(line[place]) for line in cells) for place in range(len(self.columns))]
        return [
            "  ".join(
                cell.ljust(width) if column.kind == "text" else cell.rjust(width)
                for cell, width, column in zip(line, widths, self.columns, strict=True)
            ).rstrip()
            for line in cells
        ]

    def csv(self) -> str:
        """Returns the table as CSV: numbers as they are, the parts of a cell in columns of their own."""
        headings = [
            column.heading + part
            for column in self.columns
            for part in PARTS.get(column.kind, ("",))
        ]
        lines = [
            dict(zip(headings, _parts(self.columns, line), strict=True)) for line in self.lines
        ]
        return as_csv(lines, *headings)

    def latex(self) -> str:
        """Returns the table as LaTeX, for the package booktabs."""
        kinds = "".join("l" if column.kind == "text" else "r" for column in self.columns)
        headings = " & ".join(_escaped(column.heading) for column in self.columns)
        body = [
            " & ".join(_escaped(f"{value} ({more})" if more else value) for value, more in line)
            for line in self.shown()
        ]
        return "\n".join(
            [
                rf"% {self.title}",
                rf"\begin{{tabular}}{{{kinds}}}",
                r"\toprule",
                headings + r" \\",
                r"\midrule",
                *(line + r" \\" for line in body),
                r"\bottomrule",
                r"\end{tabular}",
                *([rf"\par\footnotesize {_escaped(self.note)}"] if self.note else []),
                "",
            ]
        )


def _parts(columns: Sequence[Column], line: Sequence[Cell]) -> list[Cell]:
    found: list[Cell] = []
    for column, cell in zip(columns, line, strict=True):
        if column.kind not in PARTS:
            found.append(cell)
        else:
            count = len(PARTS[column.kind])
            assert cell is None or isinstance(cell, Sequence)
            found += [None] * count if cell is None else list(cell)
    return found


def said(column: Column, cell: Cell) -> tuple[str, str]:
    """Returns a cell as a person reads it: its value, and what stands in parentheses after it."""
    if cell is None:
        return NOTHING, ""
    if isinstance(cell, str):
        return cell, ""
    if isinstance(cell, int | float):
        whole = column.kind == "count" or isinstance(cell, int)
        return (f"{cell:,.0f}" if whole else f"{cell:,.{column.digits}f}"), ""
    *values, low, high = cell
    digits = column.digits
    value = f"{values[0]:.{digits}f}"
    if len(values) > 1 and values[1] is not None:
        value += f" ± {values[1]:.{digits}f}"
    return value, f"{low:.{digits}f} to {high:.{digits}f}"


SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--",
    "×": r"$\times$",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def error_digits(images: int) -> int:
    """Returns after how many decimals an error in percent of some images is cut: one image more must show."""
    return max(1, math.ceil(math.log10(images)) - 2)


def tables(results: Results) -> list[Table]:
    """Returns the tables of a study, those that it has rows for."""
    families = {row["family"] for row in results["rows"]}
    found = [claims(results)]
    if "cifar" in families:
        found.append(table_6(results))
    if "imagenet" in families:
        found += [table_1(results), tables_2_and_3(results)]
    if results["scales_px"]:
        found += [table_4(results), table_5(results)]
    found += [networks(results), seeds(results), ensembles(results)]
    found += [search(one) for one in results["searches"]]
    if results["plan"]:
        found.append(planned(results))
    if results["reference"]:
        found.append(against_reference(results["reference"]))
    found.append(provenance(results))
    return [table for table in found if table.lines]


def claims(results: Results) -> Table:
    """The claims with their verdicts."""
    columns = [
        Column("claim", "text"), Column("source", "text"), Column("verdict", "text"),
        Column("value", "interval", 3), Column("must be", "text"), Column("unit", "text"),
        Column("evidence", "text"), Column("needed", "text"),
    ]  # fmt: skip
    lines = [
        (
            one["claim"], one["source"], one["verdict"],
            None if one["value"] is None else (one["value"], *one["interval"]),
            None if one["value"] is None else f"{one['must_be']} {one['bound']:g}", one["unit"],
            one["evidence"], one["needed"],
        )
        for one in results["verdicts"]
    ]  # fmt: skip
    return Table("claims", "Claims and verdicts", columns, lines)


def _on(results: Results) -> str:
    """Says whether the paper's numbers are of these data, recipes and updates."""
    if not results["data"]["official"]:
        return "The paper's numbers are of its own data and trainings, and not to be compared with these."
    rows = results["rows"]
    updates = sorted(
        {row["scores"]["updates"] for row in rows if not is_as_long_as_the_papers(row)}
    )
    if not updates:
        others = ", ".join(row["name"] for row in rows if not is_trained_as_the_papers(row))
        compared = "their errors are not to be compared with the paper's."
        return f"Recipes of their own: {others}; {compared}" if others else ""
    theirs = " and ".join(
        f"{paper.UPDATES[one]:,}" for one in paper.UPDATES if one in {row["family"] for row in rows}
    )
    return (
        f"The paper's networks were trained for {theirs} updates, some of these for "
        f"{', '.join(f'{count:,}' for count in updates)}: their errors are not to be compared with the paper's."
    )


def _spread(group: Row, score: str) -> Cell:
    found = group.get(score)
    return None if found is None else (found["mean"], found["sd"], *found["ci95"])


def _of_family(results: Results, family: str) -> list[tuple[Row, Row]]:
    """Returns each group of a family, with its first row."""
    rows = {row["name"]: row for row in results["rows"]}
    pairs = [(group, rows[group["name"]]) for group in results["groups"]]
    return [(group, row) for group, row in pairs if row["family"] == family]


def table_6(results: Results) -> Table:
    """Table 6: networks on small images, their layers, parameters and test errors."""
    digits = error_digits(results["data"]["images"]["test"])
    columns = [
        Column("network", "text"), Column("layers", "count"), Column("parameters, M", digits=2),
        Column("paper: parameters, M", digits=2), Column("training error %", "spread", digits),
        Column("test error %", "spread", digits), Column("paper: test error %", digits=2),
    ]  # fmt: skip
    lines = []
    for group, row in _of_family(results, "cifar"):
        published = row["option"] == "A"
        lines.append(
            (
                group["name"], row["depth"], row["parameters"] / 1e6,
                paper.CIFAR10_RESNET_PARAMETERS_M.get(row["depth"]) if published else None,
                _spread(group, "train_error_pct"), _spread(group, "test_error_pct"),
                paper.cifar10_test_error_pct(row["depth"], row["option"]),
            )
        )  # fmt: skip
    mean, sd = paper.RESNET_110_FIVE_RUNS_PCT
    best = paper.CIFAR10_RESNET_TEST_ERROR_PCT[110]
    note = (
        f"Mean ± standard deviation over seeds, 95 % interval. {_on(results)} The paper's 110 layers: "
        f"the mean of five runs, {mean} ± {sd}; table 6 prints the best of them, {best}."
    )
    return Table("table-6", "Table 6: classification error of small images", columns, lines, note)


def table_1(results: Results) -> Table:
    """Table 1: the networks on photographs and their multiply-adds."""
    columns = [
        Column("network", "text"), Column("layers", "count"), Column("parameters, M"),
        Column("multiply-adds, billions", digits=2), Column("paper: multiply-adds, billions"),
    ]  # fmt: skip
    lines = [
        (
            group["name"], row["depth"], row["parameters"] / 1e6, row["multiply_adds"] / 1e9,
            paper.MULTIPLY_ADDS_G.get(row["depth"]) if row["option"] in ("none", "A", "B") else None,
        )
        for group, row in _of_family(results, "imagenet")
    ]  # fmt: skip
    note = "For one image of the size that this study's crops have; the paper's for 224x224."
    return Table("table-1", "Table 1: networks for photographs", columns, lines, note)


def tables_2_and_3(results: Results) -> Table:
    """Tables 2 and 3: errors of ten crops."""
    return _views(
        results, "tables-2-3", "Tables 2 and 3: ten crops", "test_ten_crops_",
        paper.IMAGENET_TEN_CROPS_PCT,
    )  # fmt: skip


def table_4(results: Results) -> Table:
    """Table 4: errors of single networks at several scales."""
    return _views(
        results, "table-4", "Table 4: fully convolutional, several scales", "test_scales_",
        paper.IMAGENET_SCALES_PCT,
    )  # fmt: skip


def _views(
    results: Results, name: str, title: str, prefix: str,
    published: Mapping[tuple[str, int, str], tuple[float, float | None]],
) -> Table:  # fmt: skip
    columns = [
        Column("network", "text"), Column("top-1 error %", "interval", 2),
        Column("top-5 error %", "interval", 2), Column("paper: top-1 %", digits=2),
        Column("paper: top-5 %", digits=2),
    ]  # fmt: skip
    lines = []
    for row in results["rows"]:
        theirs = published.get((row["block"], row["depth"], row["option"]), (None, None))
        if f"{prefix}error_pct" in row["scores"]:
            both = (
                _interval(row["scores"], prefix + top) for top in ("error_pct", "top5_error_pct")
            )
            lines.append((row["name"], *both, *theirs))
    return Table(name, title, columns, lines, f"95 % intervals over images. {_on(results)}")


def _interval(scores: Row, name: str) -> Cell:
    value = scores.get(name)
    return None if value is None else (value, *scores[f"{name}_ci95"])


def table_5(results: Results) -> Table:
    """Table 5: ensembles at several scales."""
    columns = [
        Column("ensemble", "text"), Column("members", "text"), Column("top-5 error %", "interval", 2),
        Column("paper: top-5 %", digits=2),
    ]  # fmt: skip
    lines = [
        (
            kind, ", ".join(found["members"]), _interval(found, "test_scales_top5_error_pct"),
            paper.ENSEMBLE_TOP5_PCT if kind == "declared" else None,
        )
        for kind, found in results["ensemble"].items()
    ]  # fmt: skip
    note = f"The paper's six networks were measured on the test server. {_on(results)}"
    return Table("table-5", "Table 5: ensembles", columns, lines, note)


def networks(results: Results) -> Table:
    """Every row with its scores."""
    images = results["data"]["images"]
    columns = [
        Column("row", "text"), Column("seed", "count"), Column("multiply-adds, M"),
        Column("updates", "count"),
        *(
            Column(f"{name} error %", "interval", error_digits(images[split]))
            for split, name in (("train", "training"), ("val", "validation"), ("test", "test"))
        ),
        Column("top-5 error %"), Column("NLL", digits=3), Column("ECE", digits=3),
        Column("images/s", "count"), Column("training s", "count"),
    ]  # fmt: skip
    lines = []
    for row in results["rows"]:
        scores = row["scores"]
        lines.append(
            (
                row["name"], row["seed"], row["multiply_adds"] / 1e6, scores["updates"],
                *(_interval(scores, f"{split}_error_pct") for split in ("train", "val", "test")),
                scores["test_top5_error_pct"], scores["test_nll"], scores["test_ece"],
                scores["train_images_per_s"], scores["train_seconds"],
            )
        )  # fmt: skip
    note = (
        "The last checkpoint is the result; nothing was chosen on the test images. Training errors are from a "
        "separate pass without augmentation. In parentheses: 95 % intervals over images (Clopper and Pearson). NLL and ECE "
        "(a fraction) are on the test images."
    )
    return Table("networks", "Networks", columns, lines, note)


def seeds(results: Results) -> Table:
    """Networks of several seeds."""
    columns = [
        Column("network", "text"), Column("rows", "text"),
        *(Column(f"{name} error %", "spread", 2) for name in ("training", "validation", "test")),
    ]  # fmt: skip
    lines = [
        (
            group["name"], ", ".join(group["rows"]),
            *(_spread(group, f"{split}_error_pct") for split in ("train", "val", "test")),
        )
        for group in results["groups"]
        if len(group["seeds"]) > 1
    ]  # fmt: skip
    note = (
        "Mean ± standard deviation (n − 1) over rows that differ only in their seed. In parentheses: 95 % "
        "intervals that include the spread over images and over seeds."
    )
    return Table("seeds", "Over seeds", columns, lines, note)


def ensembles(results: Results) -> Table:
    """The declared and the greedy ensemble."""
    digits = error_digits(results["data"]["images"]["test"])
    columns = [
        Column("ensemble", "text"), Column("members", "text"),
        Column("validation error %", "interval", digits), Column("test error %", "interval", digits),
        Column("top-5 error %", digits=digits), Column("best member", "text"),
        Column("gain over it, points", "interval", digits),
    ]  # fmt: skip
    lines = [
        (
            kind, ", ".join(found["members"]), _interval(found, "val_error_pct"),
            _interval(found, "test_error_pct"), found["test_top5_error_pct"], found["best_member"],
            _interval(found, "test_gain_pct") if found["members"] != [found["best_member"]] else None,
        )
        for kind, found in results["ensemble"].items()
    ]  # fmt: skip
    note = (
        "Probabilities are averaged. The greedy ensemble and each best member are chosen on validation "
        "images only."
    )
    return Table("ensembles", "Ensembles", columns, lines, note)


def search(found: Row) -> Table:
    """The trials of a search."""
    columns = [
        Column("trial", "count"), Column("shape", "text"), Column("base lr", digits=5),
        Column("warm-up", "count"), Column("drops", "text"), Column("updates", "count"),
        Column("validation error %"), Column("status", "text"),
    ]  # fmt: skip
    lines = [
        (
            int(trial["number"]), trial["shape"], float(trial["base_lr"]),
            int(trial["warmup_updates"]), trial["drops"] or NOTHING, int(trial["updates"]),
            float(trial["val_error_pct"]) if trial["val_error_pct"] else None, trial["status"],
        )
        for trial in found["trials"]
    ]  # fmt: skip
    note = (
        "Points of a Sobol sequence, of which the better ones are trained further (successive halving), judged "
        "on validation images once all have trained equally long: the same search finds the same schedule, "
        "however often it is interrupted."
    )
    title = f"Search {found['name']}: a schedule for {found['model']}"
    return Table(f"search-{found['name']}", title, columns, lines, note)


def planned(results: Results) -> Table:
    """What `make plan` predicted beside what trainings took."""
    columns = [
        Column("row", "text"), Column("planned s", "count"), Column("actual s", "count"),
        Column("actual / planned", digits=2),
    ]  # fmt: skip
    lines = [
        (row["name"], row["predicted_s"], row["real_s"], row["real_s"] / row["predicted_s"])
        for row in results["plan"]["rows"]
    ]
    note = (
        "From the start of a training to its last checkpoint; planned by `make plan` for "
        f"{results['plan']['where']}."
    )
    return Table("planned", "Planned and actual times", columns, lines, note)


def against_reference(found: Row) -> Table:
    """A study's networks beside those of a reference."""
    columns = [
        Column("network", "text"), Column("metric", "text"), Column("ours", digits=3),
        Column("seeds", "count"), Column("reference", digits=3), Column("its seeds", "count"),
        Column("p", digits=4), Column("result", "text"),
    ]  # fmt: skip
    lines = [
        (
            line["network"], line["metric"].replace("_pct", " (%)").replace("_", " "),
            line["ours"], line["seeds"], line["reference"],
            line["reference_seeds"], line["p"], "differs" if line["differs"] else "agrees",
        )
        for line in found["lines"]
    ]  # fmt: skip
    return Table("reference", "Against the reference", columns, lines)


def _short(commit: str) -> str:
    """Returns the first digits of a commit, and whether files had been changed since."""
    number, *dirty = commit.split("-")
    return "-".join([number[:12], *dirty])


def provenance(results: Results) -> Table:
    """What made each row, and how to get it."""
    columns = [
        Column("row", "text"), Column("run key", "text"), Column("commit", "text"),
        Column("hardware", "text"), Column("torch", "text"), Column("precision", "text"),
        Column("threads", "count"), Column("source", "text"), Column("weights (sha256)", "text"),
        Column("weights from S3", "text"), Column("search in MLflow", "text"),
    ]  # fmt: skip
    lines = [
        (
            row["name"], row["run_key"], _short(row["commit"]), row["hardware"], row["torch"],
            row["precision"], row["threads"], (row["source"] or NOTHING)[:12],
            row["weights_sha256"][:16], f"dvc pull train@{row['name']}", f"tags.run_key = '{row['run_key']}'",
        )
        for row in results["rows"]
    ]  # fmt: skip
    return Table("provenance", "Where each result comes from", columns, lines)
