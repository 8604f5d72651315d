# SPDX-License-Identifier: Apache-2.0
"""Training of a network on a robot, in torch."""
