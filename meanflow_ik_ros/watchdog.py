# SPDX-License-Identifier: Apache-2.0
"""A program that ends the node's process where that does not end itself after a signal.

A call into a library may keep Python's lock, and then no thread and no handler of the process can
run. What still runs is the part of Python that notes a signal, which writes to a pipe; this program
reads it. It is called with the id of the process and the seconds that it may take to end, has the
pipe for its input, imports nothing of the package, and runs by its path.
"""

import os
import select
import signal
import sys
import time


def main() -> None:
    process, seconds = int(sys.argv[1]), float(sys.argv[2])
    if not os.read(0, 1):  # the pipe is closed: the process has ended
        return
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([0], [], [], left)[0] and not os.read(0, 64):
            return
    os.write(2, b"[meanflow_ik] killed: it did not end after a signal, a call did not come back\n")
    os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
