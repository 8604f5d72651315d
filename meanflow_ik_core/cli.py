# SPDX-License-Identifier: Apache-2.0
"""The door of the command line: ``python -m meanflow_ik_core.cli`` is ``meanflow-ik``."""

from .commands.app import main

if __name__ == "__main__":
    main()
