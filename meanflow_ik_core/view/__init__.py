# SPDX-License-Identifier: Apache-2.0
"""A robot in a browser: a target that is dragged, and the arms that reach it."""
