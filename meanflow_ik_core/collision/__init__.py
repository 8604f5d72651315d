# SPDX-License-Identifier: Apache-2.0
"""Robots that touch themselves: exactly, by Coal, and fast, on spheres."""
