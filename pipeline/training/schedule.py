"""Learning-rate schedules: small YAML documents; positions are optimizer updates, counted from 0.

The paper's (sections 3.4 and 4.2): 0.1, divided by ten at 32k and 48k updates, stopped at 64k; for 110
layers, 0.01 until the training error is below 80 %; on ImageNet, divided by ten at plateaus. Schedules
that depend on errors read them from the history, which is part of every checkpoint: a schedule has no
state.

Each kind is the file of its name in schedules/; of these, a run key depends on the one that its row
uses.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.params import read_yaml, validate
from pipeline.training.schedules.cosine import CosineSchedule
from pipeline.training.schedules.plateau import PlateauSchedule
from pipeline.training.schedules.step import StepSchedule

Schedule = Annotated[StepSchedule | CosineSchedule | PlateauSchedule, Field(discriminator="shape")]


def load_schedule(path: Path, wanted_by: str = "") -> Schedule:
    """Returns the schedule in a YAML file; raises ParamsError if it is not one.

    `wanted_by` is the key of params.yaml that names it.
    """
    schedule: Schedule = validate(Schedule, read_yaml(path, wanted_by), str(path))
    return schedule
