# SPDX-License-Identifier: Apache-2.0
"""Robots: files and URDFs, read by Pinocchio, and the kinematics that come of them."""
