"""Every error that a user can encounter.

StudyError                  what a user can fix; a stage prints it and exits with status 2
├── ParamsError             params.yaml or a schedule says something impossible
├── DataError               an archive, an image or a data set is not what it should be
│   └── ChecksumError       bytes differ from their published checksum
├── ScoreError              a network's predictions cannot be scored
├── StorageError            S3 cannot be reached, refuses the keys, or holds damaged bytes
├── TrackingError           MLflow cannot be reached (a stage turns it into a warning)
│   └── SlowServerError     it took longer than it may
├── ResourceError           the machine or the cluster lacks what was asked for
├── BusyError               another process already does this work
└── TrainingError           a training cannot continue
    ├── CheckpointError     a checkpoint does not belong to this network
    ├── DivergedError       a loss is not finite
    └── ReplicasError       the workers of a training no longer hold the same weights

A message says what is wrong, where, what was found, what was wanted, and what to do next.
"""

import re


def without_password(text: str) -> str:
    """Returns the text with user names and passwords removed from its URLs."""
    return re.sub(r"://[^/\s]*@", "://", text)  # to the last @, which a password may have too


class StudyError(Exception):
    """A problem that the user can fix; its text is the whole message, without passwords."""

    def __init__(self, message: str) -> None:
        super().__init__(without_password(message))


class ParamsError(StudyError):
    """params.yaml or a schedule file says something impossible."""


class DataError(StudyError):
    """An archive, an image or a data set is not what it should be."""


class ChecksumError(DataError):
    """Bytes differ from their published checksum."""


class ScoreError(StudyError):
    """A network's predictions are not finite, or were made for other data."""


class StorageError(StudyError):
    """S3 cannot be reached, refuses the keys, or holds damaged bytes."""


class UnreachableError(StorageError):
    """S3 does not answer; it may answer later."""


class TrackingError(StudyError):
    """MLflow cannot be reached; training goes on without it."""


class SlowServerError(TrackingError):
    """MLflow took longer than it may: nothing else is asked of it."""


class ResourceError(StudyError):
    """The machine or the cluster lacks what was asked for."""


class BusyError(StudyError):
    """Another process already does this work."""


class TrainingError(StudyError):
    """A training cannot continue."""


class CheckpointError(TrainingError):
    """A checkpoint does not belong to this network or is damaged."""


class DivergedError(TrainingError):
    """A training loss is not finite."""


class ReplicasError(TrainingError):
    """The workers of a training no longer hold the same weights or history."""
