"""How busy the machine of a training is, by the names of MLflow's own system metrics."""

from contextlib import suppress

import torch

try:
    import psutil
except ImportError:  # a machine that has torch alone
    psutil = None  # type: ignore[assignment]

MB = 1e6


class Usage:
    """Of the processor and the memory of this machine, and of a training's GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.sample()  # the next one is since now

    def sample(self) -> dict[str, float]:
        """Returns percentages and megabytes of now, the processor's since the sample before."""
        found: dict[str, float] = {}
        if psutil is not None:
            memory = psutil.virtual_memory()
            found = {
                "cpu_utilization_percentage": psutil.cpu_percent(),
                "system_memory_usage_megabytes": round(memory.used / MB, 1),
                "system_memory_usage_percentage": memory.percent,
            }
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            gpu = f"gpu_{self._device.index or 0}"
            found[f"{gpu}_memory_usage_megabytes"] = round((total - free) / MB, 1)
            found[f"{gpu}_memory_usage_percentage"] = round(100 * (total - free) / total, 1)
            # it takes NVIDIA's package and a driver that tells, whose errors are of no common kind
            with suppress(Exception):
                found[f"{gpu}_utilization_percentage"] = torch.cuda.utilization(self._device)
        return {f"system/{name}": value for name, value in found.items()}
