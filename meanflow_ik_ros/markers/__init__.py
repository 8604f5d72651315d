# SPDX-License-Identifier: Apache-2.0
"""What RViz shows: arms, goals and a legend, as markers."""
