# SPDX-License-Identifier: Apache-2.0
"""What the node hears and says of its own accord.

Each module has a class that opens its topics where it is made; those that do not stay as long as
the node have `close`. `node.TOPICS` lists the classes that take the desk alone.
"""
