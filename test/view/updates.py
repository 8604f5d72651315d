# SPDX-License-Identifier: Apache-2.0
"""How many updates a second the viewer makes while a target is dragged, with a client that listens.

Run it for the figures of docs/viewer.md: ``python test/view/updates.py``. A browser draws in
processes of its own, and as fast as its graphics processor; that is no part of these.
"""

import json
import multiprocessing
import sys
import time

import numpy as np
import viser
from websockets.sync.client import connect

import meanflow_ik_core as mik
from meanflow_ik_core.view.page import Page
from meanflow_ik_core.view.session import Session

UPDATES = 150


def listen(port: int, ready, ended) -> None:
    """Take all messages, as a browser does."""
    protocol = f"viser-v{viser.__version__}"
    with connect(f"ws://127.0.0.1:{port}", subprotocols=[protocol], max_size=None) as socket:
        ready.set()
        while not ended.is_set():
            try:
                socket.recv(timeout=0.2)
            except TimeoutError:
                continue


def measure(robot: str, arms: int, **wishes) -> dict:
    """Medians in ms of CPU time: of the solver, of an update, and what is sent beside it."""
    solver = mik.load_solver(robot)
    solver.warm_up()
    session = Session(solver)
    page = Page(session, "127.0.0.1", 0)
    session.wishes = session.wishes.__class__(solver.sampler, arms, **wishes)
    ready, ended = multiprocessing.Event(), multiprocessing.Event()
    client = multiprocessing.Process(target=listen, args=(page.server.get_port(), ready, ended))
    client.start()
    ready.wait(30)
    time.sleep(2.0)  # while the meshes are sent
    first = session.targets.copy()
    solving, updating = [], []
    began = time.process_time()
    for number in range(UPDATES):
        angle = 2 * np.pi * number / 50
        session.targets = first.copy()
        session.targets[:, :2, 3] += 0.05 * np.array([np.cos(angle), np.sin(angle)])
        page._wake.set()
        start = time.thread_time()
        page.turn()
        updating.append(time.thread_time() - start)
        start = time.thread_time()
        session.solve()
        solving.append(time.thread_time() - start)
        time.sleep(0.01)
    whole = (time.process_time() - began) / UPDATES - float(np.mean(solving))
    ended.set()
    client.join(10)
    page.stop()
    return {
        "robot": robot, "arms": arms, **wishes,
        "solver_ms": round(1e3 * float(np.median(solving)), 2),
        "update_ms": round(1e3 * float(np.median(updating)), 2),
        "with_sending_ms": round(1e3 * whole, 2),
        "updates_per_second": round(1 / whole),
    }  # fmt: skip


if __name__ == "__main__":
    for robot in sys.argv[1:] or ("panda", "dual_panda"):
        for avoiding in (True, False):
            print(json.dumps(measure(robot, 64, avoid_self_collision=avoiding)))
