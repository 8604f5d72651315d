# SPDX-License-Identifier: Apache-2.0
"""What may touch is what a plain list of pairs says."""

import time

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


def test_copies_of_decisions_go_their_own_ways():
    random = np.random.default_rng(0)
    names = [*"abc", "*"]
    kept: list[tuple[Decisions, dict]] = [(Decisions(), {})]
    for _ in range(1000):
        number = random.integers(len(kept))
        told, expected = kept[number]
        first, second = (names[i] for i in random.integers(0, len(names), 2))
        if random.random() < 0.2 and len(kept) < 10:
            kept.append((told.copy(), dict(expected)))
        elif random.random() < 0.2:
            told.forget(first)
            kept[number] = told, {p: may for p, may in expected.items() if first not in p}
        else:
            allowed = bool(random.integers(2))
            told.tell(first, second, allowed)
            expected[first, second] = allowed
        for one, pairs in kept:
            assert dict(one.items()) == pairs and len(one) == len(pairs)


def test_a_copy_costs_little_however_much_was_told():
    told = Decisions()
    began = time.process_time()
    for link in range(20):
        for obstacle in range(1000):
            told.tell(f"link{link}", f"obstacle{obstacle}", True)
    told_s = time.process_time() - began
    began = time.process_time()
    for _ in range(100):
        told.copy()
    assert time.process_time() - began < told_s
