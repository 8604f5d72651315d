# SPDX-License-Identifier: Apache-2.0
"""How the node's process runs: signals, the executor, and an end that leaves no request hanging."""

from __future__ import annotations

import gc
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from meanflow_ik_core.errors import IKError
from meanflow_ik_ros.library_services import bound_services
from meanflow_ik_ros.own_thread import OwnThread
from meanflow_ik_ros.rare_log import WARN_EVERY_S, trace
from meanflow_ik_ros.unreachable_clients import UnreachableClients

# Of the executor: for parameters, transitions, what changes the world, timers and TF. All else has
# its own thread.
THREADS = 6
# From a signal to the end of the process, whatever it does.
LONGEST_END_S = 1.8
_WATCHDOG = Path(__file__).with_name("watchdog.py")
_FAST_DDS = Path(__file__).with_name("fast_dds.xml")
# Whoever sets one of these has a configuration of their own. Fast DDS 2, of Jazzy, knows the first
# name of the file alone, and its successor warns of it.
_PROFILES_2, _PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
_TAKE_PROFILES = "RMW_FASTRTPS_USE_QOS_FROM_XML"
# A thread that comes back from the solver or from ROS waits for Python's lock as long as this while
# another one holds it. The executor takes it all the time under load; with Python's 5 ms each of
# some hundred short calls of a request would wait that long.
SWITCH_INTERVAL_S = 1e-4
# Set while a node loads: a signal then interrupts the main thread wherever that is. Once a node has
# threads of its own, which have to end with it, a signal is a request that waits.
_loading = threading.Event()


class ProcessNode(LifecycleNode):
    """A managed node as a process runs it.

    after_configure: called whenever the node has been configured.
    """

    after_configure: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, name: str, **node_arguments: Any) -> None:
        self._own_threads: list[OwnThread] = []
        super().__init__(name, **node_arguments)
        bound_services(self)
        clients = UnreachableClients(self)
        for service in self.services:
            clients.guard(service)

    def own_thread(self, name: str, **options: Any) -> OwnThread:
        """A callback group for what is created next; `start_own_threads` starts its thread."""
        thread = OwnThread(self, name, **options)
        self._own_threads.append(thread)
        return thread

    def start_own_threads(self) -> None:
        _loading.clear()
        for thread in self._own_threads:
            thread.start()

    def quiet_since(self) -> float:
        """When clients have read the last answer, by time.monotonic; now while a request waits."""
        return max((thread.quiet_since() for thread in self._own_threads), default=0.0)

    def stop_own_threads(self) -> None:
        """Return once no own thread calls anything any more; the solver must be free."""
        while self._own_threads:
            self._own_threads.pop().stop()

    def destroy_node(self) -> None:
        self.stop_own_threads()
        super().destroy_node()

    def refuse_requests(self) -> None:
        """Refuse what is queued until nothing more comes; the executor still spins."""
        raise NotImplementedError


def run_node(make: Callable[[], ProcessNode], args: list[str] | None = None) -> int:
    """Make the node and spin it until SIGINT or SIGTERM; returns the exit code."""
    stopped = threading.Event()
    asked_to_stop = False
    # A handler interrupts the main thread anywhere, also while that holds the lock of the event
    # that it waits for: to set the event there would wait for ever. A queue of this kind is safe.
    requests: queue.SimpleQueue[int] = queue.SimpleQueue()

    def on_signal(signum: int, frame: Any) -> None:
        nonlocal asked_to_stop
        # Under a launch file Ctrl-C arrives twice; the second one must not hit the clean-up.
        first, asked_to_stop = not asked_to_stop, True
        requests.put(signum)
        if first and _loading.is_set():
            raise KeyboardInterrupt

    def stop_on_request() -> None:
        requests.get()
        stopped.set()

    threading.Thread(target=stop_on_request, name="signals", daemon=True).start()

    node = None
    watch_the_end()
    give_messages_back()
    # rclpy's own handler would invalidate the context at once, with requests still unanswered.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, on_signal)
    try:
        _loading.set()
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
        _loading.clear()
        settle_memory()
        node.after_configure = settle_memory
        spin_until(node, stopped)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        logger = get_logger("meanflow_ik")
        if isinstance(error, IKError):
            logger.fatal(str(error))
        elif type(error).__module__.startswith("rclpy"):
            # The message of rclpy names the file or the argument; a traceback would only hide it.
            logger.fatal(f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            logger.fatal(trace())
        return 1
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def watch_the_end() -> None:
    """Let another process kill this one where it does not end `LONGEST_END_S` after a signal.

    A call into a library cannot be ended, only its process. The other one ends with this one.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    subprocess.Popen(
        [sys.executable, "-I", "-S", str(_WATCHDOG), str(os.getpid()), str(LONGEST_END_S)],
        stdin=read,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal is for the node alone
    )
    os.close(read)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)


def give_messages_back() -> None:
    """Have Fast DDS free the memory of messages, unless its environment configures it already.

    It reads the environment when the first node is made; another middleware does not.
    """
    if not os.environ.keys() & {_PROFILES_2, _PROFILES, _TAKE_PROFILES}:
        since_kilted = hasattr(rclpy, "InitContextManager")
        os.environ[_PROFILES if since_kilted else _PROFILES_2] = str(_FAST_DDS)
        os.environ[_TAKE_PROFILES] = "1"


def settle_memory() -> None:
    """Keep the garbage collector from what is loaded, which stays.

    To look through all of it would stop every thread for 150 ms.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def spin_until(node: ProcessNode, stopped: threading.Event) -> None:
    """Spin in a thread until `stopped` is set, then answer what is queued and stop spinning."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    executor = MultiThreadedExecutor(num_threads=THREADS)
    executor.add_node(node)
    # Only the end of a future makes a waiting executor return; `wake` alone does not.
    done: Future[None] = Future()
    failure: list[BaseException] = []

    def spin() -> None:
        try:
            while not done.done() and rclpy.ok():
                try:
                    executor.spin_until_future_complete(done)
                except InvalidHandle:
                    continue  # A transition has closed a service whose answer was under way.
                except ExternalShutdownException:
                    break
                except Exception:
                    # A callback made a mistake, or a client died before its answer.
                    node.get_logger().error(
                        f"a callback failed: {trace()}",
                        throttle_duration_sec=WARN_EVERY_S,
                    )
        except BaseException as error:
            failure.append(error)
        finally:
            stopped.set()

    thread = threading.Thread(target=spin, name="executor")
    thread.start()
    try:
        stopped.wait()
    finally:
        if thread.is_alive() and rclpy.ok():
            node.refuse_requests()
        done.set_result(None)
        thread.join()
        executor.shutdown()
    if failure:
        raise failure[0]
