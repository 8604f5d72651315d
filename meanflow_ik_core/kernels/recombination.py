# SPDX-License-Identifier: Apache-2.0
"""Parts of a goal that share no joint: what one sample found serves others as well."""

import numpy as np

from .descent import CONVERGED, FAILED, OPEN
from .jit import jit


@jit
def recombine(q, found, outcome, joint_parts):
    """Complete failed samples of one problem, part by part, with what other samples found.

    A part that no sample found stays as it is in each.

    Args:
        q: (N, J), changed in place.
        found: (N, P) bool, parts that are near their targets.
        outcome: (N,) int8: FAILED samples are completed, and CONVERGED where all parts are found.
        joint_parts: (J,) which part a joint moves, or -1.
    """
    num_samples, num_parts = found.shape
    have = np.empty(num_samples, np.int64)
    complete = True
    for part in range(num_parts):
        count = 0
        for n in range(num_samples):
            if found[n, part]:
                have[count] = n
                count += 1
        complete &= count > 0
        # One after another, with a shift per part so that not the same samples meet again.
        turn = part * count // num_parts
        for n in range(num_samples if count else 0):
            if outcome[n] != FAILED or found[n, part]:
                continue
            source = have[turn % count]
            turn += 1
            for j in range(q.shape[1]):
                if joint_parts[j] == part:
                    q[n, j] = q[source, j]
    for n in range(num_samples if complete else 0):
        if outcome[n] == FAILED:
            outcome[n] = CONVERGED


@jit
def parts_found(errors, outcome, tolerances, arrays, found):
    """Write which parts are within tolerances (G, 2) of their targets to found (N, P).

    Errors are (N, G, 2). Nothing is found by an open sample.
    """
    for n in range(found.shape[0]):
        for part in range(found.shape[1]):
            found[n, part] = outcome[n] != OPEN
        for t in range(errors.shape[1]):
            for i in range(2):
                if not errors[n, t, i] <= tolerances[t, i]:
                    found[n, arrays.tip_parts[t]] = False
