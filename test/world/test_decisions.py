# SPDX-License-Identifier: Apache-2.0
"""What may touch is what a plain list of pairs says."""

import numpy as np

from meanflow_ik_core.world.decisions import Decisions


def test_decisions_are_those_of_a_plain_list_of_pairs():
    random = np.random.default_rng(0)
    names = [*"abcdef", "*"]
    told, expected = Decisions(), {}
    for _ in range(2000):
        first, second = (names[i] for i in random.integers(0, len(names), 2))
        if random.random() < 0.2:
            told.forget(first)
            expected = {pair: may for pair, may in expected.items() if first not in pair}
        else:
            allowed = bool(random.integers(2))
            told.tell(first, second, allowed)
            expected[first, second] = allowed
        assert dict(told.items()) == expected and len(told) == len(expected)
        assert ((first, second) in told) == ((first, second) in expected)
        assert told.of(second) == {a: may for (a, b), may in expected.items() if b == second}


def test_a_copy_of_decisions_goes_its_own_way():
    told = Decisions()
    told.tell("hand", "ball", True)
    other = told.copy()
    other.tell("hand", "box", True)
    other.forget("ball")
    assert dict(told.items()) == {("hand", "ball"): True} and len(told) == 1
    assert dict(other.items()) == {("hand", "box"): True} and len(other) == 1
