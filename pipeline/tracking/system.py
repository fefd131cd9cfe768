"""How busy this machine is, as MLflow's own system metrics: their names, so that its page shows them apart."""

from contextlib import suppress
from typing import Any, cast


class Monitors:
    """Processor and memory of this machine, and its GPUs if NVIDIA's `nvidia-ml-py` is installed."""

    def __init__(self) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        cpu, gpu = cast(Any, CPUMonitor), cast(Any, GPUMonitor)  # without types
        self._monitors = [cpu()]
        # there may be no such package, or no such GPU
        with suppress(ImportError, MlflowException, RuntimeError):
            self._monitors.append(gpu())

    def sample(self) -> dict[str, float]:
        """Returns figures of now: percentages, and megabytes of memory; the first time since the start."""
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= {
                f"system/{name}": value for name, value in monitor.aggregate_metrics().items()
            }
            monitor.clear_metrics()
        return found
