# SPDX-License-Identifier: Apache-2.0
"""Settings that must stand before rclpy and torch are imported for the first time."""

import importlib.util
import os

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
# The tensors of the tests are small: several threads in several processes only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config):
    """Import rclpy while pytest does not hold stdout: the wheels start python anew on it."""
    if importlib.util.find_spec("rclpy") is None:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    import rclpy  # noqa: F401

    if capture is not None:
        capture.resume_global_capture()
