"""How long the page of a large study takes, beside that of one of the default study's size.

`python -m benchmarks.page [index.html]`: made-up results of 40 rows with 200 reports and 10,000 test images, and
of 20 rows with 8 reports and 360 images, in turns; the ratio is per ten rows. The page of the 40 rows is left at
`index.html`, for `node look.mjs index.html 1400 light` in tests/browser, which says after how many
milliseconds in Chromium its first chart answers (`interactive_ms`).
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipeline.params import Study
from pipeline.report import page
from pipeline.report.claims import asking
from pipeline.report.claims.claim import Decided, decide
from pipeline.report.gathering import gather
from tests.report.studies import study_of, write_study

TURNS = 3


def made(study: Study, folder: Path) -> tuple[float, float, str]:
    """Makes a page; returns its seconds, those of the claims' tests among them, and the page."""
    spent = list[float]()

    def timed(*arguments: Any) -> list[Decided]:
        began = time.perf_counter()
        try:
            return decide(*arguments)
        finally:
            spent.append(time.perf_counter() - began)

    with patch.object(asking, "decide", timed):
        began = time.perf_counter()
        text = page.render(gather(study, folder))
        return time.perf_counter() - began, sum(spent), text


def main(left_at: str = "") -> None:
    """Prints a line for each turn, and the medians."""
    with tempfile.TemporaryDirectory() as name:
        large, small = Path(name) / "large", Path(name) / "small"
        studies = {large: study_of(seeds=5), small: study_of(seeds=2, depths=(20, 32, 44, 56, 110))}
        write_study(large, studies[large], images=10_000, reports=200)
        write_study(small, studies[small], images=360, reports=8)
        ratios, shares = [], []
        for _ in range(TURNS):
            whole, tests, text = made(studies[large], large)
            other, _, _ = made(studies[small], small)
            per_ten = whole / len(studies[large].models) / (other / len(studies[small].models))
            ratios.append(per_ten)
            shares.append(tests / whole)
            print(
                f"{len(studies[large].models)} rows: {whole:.1f} s, of which the tests {tests:.1f} s, "
                f"{len(text.encode()) / 1e6:.2f} MB; {len(studies[small].models)} rows: {other:.1f} s; for each ten rows "
                f"{per_ten:.2f} times as long"
            )
    if left_at:
        Path(left_at).write_text(text, encoding="utf-8")
    print(
        f"medians: {statistics.median(ratios):.2f} (target 2), tests {statistics.median(shares):.2f} (target 0.33)"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
