# SPDX-License-Identifier: Apache-2.0
"""What the node is asked: one service per module."""
