# SPDX-License-Identifier: Apache-2.0
"""From waypoints to a continuous joint path."""
