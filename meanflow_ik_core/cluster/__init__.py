# SPDX-License-Identifier: Apache-2.0
"""Much work in chunks, on the cores of this machine or on a Dask cluster, and the file of it."""
