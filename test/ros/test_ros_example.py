# SPDX-License-Identifier: Apache-2.0
"""The example of a client, against a running node."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from oracles import Judge
from ros_user import DEADLINE_S

CLIENT = Path(__file__).parents[2] / "examples" / "ros_client.py"


def test_the_client_prints_solutions(shared_node, panda):
    done = subprocess.run(
        [sys.executable, str(CLIENT), "/own/meanflow_ik/get_ik_solutions"],
        capture_output=True, text=True, timeout=2 * DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"\[(.*)\] cost", done.stdout)
    assert len(rows) == 5
    for row in rows:
        tcp = Judge(panda).link(np.array(row.split(","), float), "panda_hand_tcp").homogeneous
        np.testing.assert_allclose(tcp[:3, 3], (0.45, 0.0, 0.2), atol=3e-3)
        np.testing.assert_allclose(tcp[:3, 2], (0.0, 0.0, -1.0), atol=3e-3)
