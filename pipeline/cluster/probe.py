"""What a cluster's nodes run, and what nodes its autoscaler may add: a small job prints it as JSON."""

import importlib.metadata
import json
import platform

import ray

PACKAGES = ("ray", "torch")


def main() -> None:
    """Prints the versions and the resources of each kind of node that may be added."""
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    # not in Ray's public API; Ray Data and Ray Train ask the same way
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config is not None else []
    found = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "shapes": [dict(group.resources) for group in groups if group.max_count != 0],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
