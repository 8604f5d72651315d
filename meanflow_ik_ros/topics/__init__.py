# SPDX-License-Identifier: Apache-2.0
"""What the node hears and says on topics."""
