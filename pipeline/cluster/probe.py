"""A small job that prints a cluster's versions, and the nodes that its autoscaler may add, as JSON."""

import importlib.metadata
import json
import platform

import ray

from pipeline.cluster.private import shapes_to_come

PACKAGES = ("ray", "torch")


def main() -> None:
    """Prints the versions and the resources of each kind of node that may be added."""
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    found = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "shapes": shapes_to_come(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
