// SPDX-License-Identifier: Apache-2.0
// Steps of many samples, a thread each. Stands after least_squares.h, see `generated.py`; compiled
// in float to come close.

// Step samples q (B, count, JOINTS) of B problems in place.
//   settings: from COARSE on the precision (TIPS, 2) of these steps; target (B, TIPS, 16);
//   reference (B, JOINTS); lost (B): with a part, whether a problem's first ALONE samples are
//   stepped for this part alone; outcome (B, count), written: OPEN where a start is not finite;
//   found (B, count), written bit by bit: which parts are near their targets.
KERNEL void descend(const double* settings, const double* target, const double* reference,
                    const unsigned char* lost, double* samples, unsigned char* outcome, int* found,
                    int count, int iterations, int sliding, int part, int rows) {
  EACH_ROW(row, rows) {
    const int problem = row / count;
    double* sample = samples + (long long)row * JOINTS;
    double total = 0.;
    for (int j = 0; j < JOINTS; j++) total += sample[j] * 0.;
    if (part < 0) outcome[row] = OPEN;
    if (total == 0. && (part < 0 || (lost[problem] && row % count < ALONE))) {
      REAL q[JOINTS], wanted[TIPS * 16], aim[JOINTS];
      UNROLL
      for (int j = 0; j < JOINTS; j++) {
        const double turns = continuous[j] ? rint(sample[j] / 6.283185307179586) : 0.;
        q[j] = sample[j] - 6.283185307179586 * turns;
        aim[j] = SLIDING ? reference[problem * JOINTS + j] : 0.f;
      }
      UNROLL
      for (int i = 0; i < TIPS * 16; i++) wanted[i] = target[(long long)problem * TIPS * 16 + i];
      outcome[row] = descend_sample(q, wanted, aim, settings + COARSE, iterations,
                                    SLIDING ? sliding : STAY, part);
      UNROLL
      for (int j = 0; j < JOINTS; j++) sample[j] = q[j];
      if (PARTS > 1 && part < 0) {
        REAL rotation[NODES][9], origin[NODES][3], reached[9], position[3], distance, angle;
        int near_parts = (1 << PARTS) - 1;
        node_poses(q, rotation, origin);
        for (int t = 0; t < TIPS; t++) {
          const double* precision = settings + COARSE + t * 2;
          tip_pose(t, rotation, origin, reached, position);
          exact_error(t, reached, position, wanted + t * 16, &distance, &angle);
          const int is_near = distance * distance * (REAL)precision[0] <= 1.f &&
                              angle * angle * (REAL)precision[1] <= 1.f;
          if (!is_near) near_parts &= ~(1 << tip_part[t]);
        }
        found[row] = near_parts;
      }
    }
  }
}
