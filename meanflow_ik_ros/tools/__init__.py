# SPDX-License-Identifier: Apache-2.0
"""Programs beside the node: clients, the demo, measurements."""
