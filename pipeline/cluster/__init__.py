"""The only package that imports Ray, which reads its settings when imported: they are set here first."""

import logging
import os

SETTINGS = {
    "RAY_AUTH_MODE": "token",  # listening on loopback alone does not keep other users out
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # with Ray's default, 15, a training would starve beside other work
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a dead worker is noticed four times sooner
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # after that, an elastic group tries with fewer
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # otherwise every report is logged
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C must end the stage, not finish the search
}

EMBEDDED = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # this machine is never preempted
    # where Ray supports no clusters its servers listen on loopback only; elsewhere on all interfaces
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
IN_CLUSTER = ("RAY_ADDRESS", "RAY_RAYLET_PID")  # set in its clients and drivers, and in its workers

_here = {} if any(os.environ.get(_name) for _name in IN_CLUSTER) else EMBEDDED
for _name, _value in {**SETTINGS, **_here}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402, F401

logging.getLogger("ray").setLevel(logging.WARNING)  # importing Ray sets it to INFO
