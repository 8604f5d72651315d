// SPDX-License-Identifier: Apache-2.0
// Steps into tolerances: `kernels.refinement`. Stands after least_squares.h, see `generated.py`;
// compiled in double, with ENTERING 1.

// Step samples q (B, count, JOINTS) that are no solutions (valid, errors and outcome are of
// `finish`) to where their errors lie within the tolerances; these are ENTERED then.
KERNEL void enter(const double* settings, const double* target, const double* errors,
                  const unsigned char* valid, double* q, unsigned char* outcome, int count,
                  int rows) {
  EACH_ROW(row, rows) {
    double total = 0., within = 0.;
    for (int i = 0; i < TIPS * 2; i++) {
      const double error = errors[(long long)row * TIPS * 2 + i];
      total += error * error;
      within += settings[TOLERANCES + i] * settings[TOLERANCES + i];
    }
    if (!valid[row] && total <= IN_REACH * within) {
      double* sample = q + (long long)row * JOINTS;
      descend_sample(sample, target + (long long)(row / count) * TIPS * 16, sample,
                     settings + WITHIN, ENTERING_ITERATIONS, STAY, -1);
      outcome[row] = ENTERED;
    }
  }
}
