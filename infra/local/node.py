"""`ray start` for a node whose servers listen on loopback alone; the arguments are those of `ray`.

Ray replaces 127.0.0.1 with the machine's external address and then listens on all interfaces. It does
not do so on platforms where it has no clusters (macOS), so its processes are told that this is one.
"""

import os

from ray._private import services
from ray.scripts.scripts import cli

services.resolve_ip_for_localhost = lambda host: host
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that are started
cli()
