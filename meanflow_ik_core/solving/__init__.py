# SPDX-License-Identifier: Apache-2.0
"""From targets to ranked solutions: starts, refinement, choice."""
