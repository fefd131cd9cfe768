"""`ray start` for a node whose servers listen on loopback alone; its arguments are ray's.

Ray's other servers do so where it has no clusters (macOS), so the node's processes are told that this is
such a place.
"""

import os

from pipeline.cluster.private import stay_on_loopback

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that are started

from ray.scripts.scripts import cli

stay_on_loopback()
cli()
