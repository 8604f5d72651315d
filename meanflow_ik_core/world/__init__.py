# SPDX-License-Identifier: Apache-2.0
"""Obstacles around a robot: what a caller adds, moves and attaches, and files of them."""
