# SPDX-License-Identifier: Apache-2.0
"""Messages to core types and back, by pure functions."""
