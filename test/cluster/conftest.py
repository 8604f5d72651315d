# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster of this machine."""

import pytest


@pytest.fixture(scope="package")
def cluster():
    """Two workers, which are started again when they die."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as local:
        yield local
