# SPDX-License-Identifier: Apache-2.0
"""The command line: each module holds one command."""
