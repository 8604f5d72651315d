# SPDX-License-Identifier: Apache-2.0
"""Compiled arithmetic, by numba. Arrays go in and out; no module knows a robot or an option."""
