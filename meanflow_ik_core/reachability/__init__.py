# SPDX-License-Identifier: Apache-2.0
"""Which poses of a workspace a tip reaches, in how many ways, and how far from trouble."""
