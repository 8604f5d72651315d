# SPDX-License-Identifier: Apache-2.0
"""Networks that turn noise and a goal into joints, in torch, and the checkpoints that hold them."""
