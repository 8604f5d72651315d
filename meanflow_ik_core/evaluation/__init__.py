# SPDX-License-Identifier: Apache-2.0
"""How good samplers are, against the exact answer where it is known."""
