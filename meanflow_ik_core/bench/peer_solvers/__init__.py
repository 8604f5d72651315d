# SPDX-License-Identifier: Apache-2.0
"""Other solvers, and ours in their terms: each is asked in the way that suits it best."""
