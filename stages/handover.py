"""Stage `handover`: hands all stale trainings to the cluster before the first one is collected.

They train side by side there, while `dvc repro` collects them in turn. The output is always the
same, so that it invalidates no one. Without RAY_ADDRESS there is nothing to hand over.
"""

import os
from pathlib import Path

from pipeline.files import write
from stages import stage


def main() -> None:
    """Submits every row that has neither a result nor a living job."""
    if os.environ.get("RAY_ADDRESS"):
        from infra.local import s3
        from pipeline import params
        from pipeline.data import arrays
        from stages import where

        study, there = params.load(), where.cluster()
        assert there is not None
        data = arrays.load(where.ARRAYS)
        where.hand_over(there, study, data, s3.connect(), list(study.models))
    write(Path("state/handover"), "handed over\n")


if __name__ == "__main__":
    stage.main(main)
