# SPDX-License-Identifier: Apache-2.0
"""ROS 2 node and messages of meanflow_ik_core."""

from pkgutil import extend_path

# The generated msg and srv modules may live in another folder than these sources.
__path__ = extend_path(__path__, __name__)
