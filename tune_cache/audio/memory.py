"""How much memory this process has taken.

Conventions
-----------
Bytes of resident memory, of one process and never of its children.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

__all__ = ["peak_rss_bytes"]


def peak_rss_bytes() -> int:
    """Read the resident memory at its worst since this program was started.

    Not ``ru_maxrss`` where it can be helped: on Linux a child inherits it from
    the process that started it, and a decoder would report the encoder's weights.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
    except OSError:
        status = ""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found:
        return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
