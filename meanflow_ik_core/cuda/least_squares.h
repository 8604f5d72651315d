// SPDX-License-Identifier: Apache-2.0
// Errors of the tips of one sample and damped least-squares steps, as `kernels/` has them: what is
// asked of a tip, its measures and weights are tables, see `kernels.layout`. Stands after
// kinematics.h, see `generated.py`.
//
// Row 6 t + i of errors and Jacobian is component i of tip t: position, then orientation.

enum { NOT_ASKED = -1, PLAIN, WEIGHTED, SWING, TWIST };
enum { OPEN, FAILED, CONVERGED, ENTERED };
enum { STAY, SLIDE_AFTERWARDS, SLIDE_AT_ONCE };

#define ROWS (6 * TIPS)
#define TURN ((REAL)6.283185307179586)
#define SLIDING_STEPS 12  // at most
#define LONGEST_SLIDE .5f  // rad or m, of the joint that moves most in a step of a slide
#define STILL 2e-3f  // of the joint that moves most in the last step of a slide
// Whether a tip counts while one part is refined without the others; -1: all do.
#define COUNTS(t, part) (PARTS < 2 || (part) < 0 || tip_part[t] == (part))

// Angle by the short way round.
INLINE REAL wrapped(REAL angle) { return angle - TURN * rint(angle / TURN); }

// Vector (3) along the axes of a target.
INLINE REAL along(const REAL* wanted, int axis, const REAL* v) {
  return wanted[axis] * v[0] + wanted[4 + axis] * v[1] + wanted[8 + axis] * v[2];
}

// 2 sin(angle) axis in the base of the turn to the target; returns its trace.
INLINE REAL turn_to(const REAL* wanted, const REAL* reached, REAL* turn) {
  REAL trace = 0.f;
  UNROLL
  for (int a = 0; a < 3; a++) turn[a] = 0.f;
  UNROLL
  for (int b = 0; b < 3; b++) {
    const REAL x0 = reached[b], x1 = reached[3 + b], x2 = reached[6 + b];
    const REAL u0 = wanted[b], u1 = wanted[4 + b], u2 = wanted[8 + b];
    trace += x0 * u0 + x1 * u1 + x2 * u2;
    turn[0] += x1 * u2 - x2 * u1;
    turn[1] += x2 * u0 - x0 * u2;
    turn[2] += x0 * u1 - x1 * u0;
  }
  return trace;
}

// Rotation (9) of the tip in the target's axes.
INLINE void turned(const REAL* wanted, const REAL* reached, REAL* relative) {
  UNROLL
  for (int i = 0; i < 3; i++) {
    UNROLL
    for (int j = 0; j < 3; j++)
      relative[i * 3 + j] = wanted[i] * reached[j] + wanted[4 + i] * reached[3 + j] +
                            wanted[8 + i] * reached[6 + j];
  }
}

// Error (3) from a vector (3) of the base, and the map (9) of velocities to where it is measured;
// returns the square of what counts.
INLINE REAL vector_error(int measure, const REAL* wanted, const REAL* v, REAL weight,
                         const REAL* weights, const REAL* counts, REAL* error, REAL* map) {
  REAL square = 0.f;
  UNROLL
  for (int i = 0; i < 3; i++) {
    if (measure == PLAIN) {
      error[i] = v[i] * weight;
      square += v[i] * v[i];
    } else {
      const REAL component = along(wanted, i, v);
      error[i] = component * weights[i];
      square += component * component * counts[i];
      UNROLL
      for (int a = 0; a < 3; a++) map[i * 3 + a] = wanted[a * 4 + i] * weights[i];
    }
  }
  return square;
}

// Error and map where the tip may turn about one axis; returns the unweighted square.
INLINE REAL swing_error(const REAL* wanted, const REAL* reached, int axis, const REAL* weights,
                        REAL* error, REAL* map) {
  const int i = (axis + 1) % 3, k = (axis + 2) % 3;
  REAL relative[9];
  turned(wanted, reached, relative);
  const REAL half = relative[axis * 4] + 1.f;  // 2 cos^2(angle / 2)
  const REAL scale = sqrt(2.f / (half > 1e-6f ? half : 1e-6f));
  const REAL toward = relative[k * 3 + axis] * scale, away = relative[i * 3 + axis] * scale;
  for (int n = 0; n < 3; n++)
    for (int a = 0; a < 3; a++) map[n * 3 + a] = wanted[a * 4 + n] * weights[n];
  error[axis] = 0.f;
  error[i] = toward * weights[i];
  error[k] = -away * weights[k];
  return half > 1e-3f ? toward * toward + away * away : 4.f - 2.f * half;
}

// Error and map where the turn about one axis alone counts; returns the unweighted square.
INLINE REAL twist_error(const REAL* wanted, const REAL* reached, int axis, const REAL* weights,
                        REAL* error, REAL* map) {
  const int i = (axis + 1) % 3, k = (axis + 2) % 3;
  REAL relative[9], xyzw[4];
  turned(wanted, reached, relative);
  quaternion(relative, xyzw);
  for (int n = 0; n < 3; n++) {
    error[n] = 0.f;
    for (int a = 0; a < 3; a++) map[n * 3 + a] = 0.f;
  }
  const REAL twist = -2.f * xyzw[axis];
  error[axis] = twist * weights[axis];
  // The derivative of the quaternion's vector part v is (w omega + omega x v) / 2.
  for (int a = 0; a < 3; a++)
    map[axis * 3 + a] = weights[axis] * (xyzw[3] * wanted[a * 4 + axis] +
                                         xyzw[k] * wanted[a * 4 + i] - xyzw[i] * wanted[a * 4 + k]);
  return twist * twist;
}

// Cut an error (3) to what of it is beyond the slack; returns the square of that.
INLINE REAL beyond(REAL* error, REAL square, REAL slack) {
  const REAL size = sqrt(square), rest = size > slack ? size - slack : 0.f;
  for (int a = 0; a < 3; a++) error[a] *= size > slack ? rest / size : 0.f;
  return rest * rest;
}

// Error (6) of tip t and its maps (18); returns its size in tolerances, squared. The precision
// (TIPS, 2) is followed, in steps into the tolerances, by slack and weights of the errors.
INLINE REAL tip_error(int t, const REAL* reached, const REAL* position, const REAL* wanted,
                      const double* precision, REAL* error, REAL* maps) {
  REAL v[3], square = 0.f, ratio = 0.f;
  UNROLL
  for (int a = 0; a < 3; a++) {
    v[a] = wanted[a * 4 + 3] - position[a];
    error[a] = error[3 + a] = 0.f;
  }
  if (position_measure[t] != NOT_ASKED) {
    ratio = vector_error(position_measure[t], wanted, v, position_weight[t], axis_weight + t * 6,
                         axis_counts + t * 6, error, maps);
    if (ENTERING) ratio = beyond(error, ratio, (REAL)precision[TIPS * 2 + t * 2]);
    ratio *= (REAL)precision[t * 2];
  }
  if (orientation_measure[t] == PLAIN || orientation_measure[t] == WEIGHTED) {
    const REAL trace = turn_to(wanted, reached, v), half = trace + 1.f;
    // 1 + trace is 4 cos^2(angle / 2), so this makes the turn 2 sin(angle / 2) axis.
    const REAL scale = 1.f / sqrt(half > 1e-6f ? half : 1e-6f);
    UNROLL
    for (int a = 0; a < 3; a++) v[a] *= scale;
    // The axis vanishes at half a turn; the trace does not.
    square = half > 1e-3f ? v[0] * v[0] + v[1] * v[1] + v[2] * v[2] : 3.f - trace;
    vector_error(orientation_measure[t], wanted, v, orientation_weight[t], axis_weight + t * 6 + 3,
                 axis_counts + t * 6 + 3, error + 3, maps + 9);
  } else if (orientation_measure[t] == SWING) {
    square = swing_error(wanted, reached, free_axis[t], axis_weight + t * 6 + 3, error + 3,
                         maps + 9);
  } else if (orientation_measure[t] == TWIST) {
    square = twist_error(wanted, reached, free_axis[t], axis_weight + t * 6 + 3, error + 3,
                         maps + 9);
  }
  if (ENTERING) {
    if (orientation_measure[t] != NOT_ASKED)
      square = beyond(error + 3, square, (REAL)precision[TIPS * 2 + t * 2 + 1]);
    for (int a = 0; a < 6; a++) error[a] *= (REAL)precision[TIPS * 4 + t * 2 + a / 3];
  }
  return ratio + square * (REAL)precision[t * 2 + 1];
}

// Distance [m] and angle [rad] of tip t to the nearest pose that is asked for, without loss.
INLINE void exact_error(int t, const REAL* reached, const REAL* position, const REAL* wanted,
                        REAL* distance, REAL* angle) {
  REAL v[3], square = 0.f;
  UNROLL
  for (int a = 0; a < 3; a++) v[a] = wanted[a * 4 + 3] - position[a];
  UNROLL
  for (int i = 0; i < 3; i++) {
    const REAL component = position_measure[t] == PLAIN ? v[i] : along(wanted, i, v);
    square += component * component * axis_counts[t * 6 + i];
  }
  *distance = sqrt(square);
  *angle = 0.f;
  if (orientation_measure[t] == PLAIN || orientation_measure[t] == WEIGHTED) {
    const REAL trace = turn_to(wanted, reached, v);
    *angle = atan2(sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), trace - 1.f);
  } else if (orientation_measure[t] != NOT_ASKED) {
    const int axis = free_axis[t], i = (axis + 1) % 3, k = (axis + 2) % 3;
    REAL relative[9], xyzw[4];
    turned(wanted, reached, relative);
    if (orientation_measure[t] == SWING) {
      const REAL a = relative[k * 3 + axis], b = relative[i * 3 + axis];
      *angle = atan2(sqrt(a * a + b * b), relative[axis * 4]);
    } else {
      quaternion(relative, xyzw);
      const REAL twist = xyzw[axis] * xyzw[axis];
      const REAL rest = xyzw[3] * xyzw[3] + xyzw[i] * xyzw[i] + xyzw[k] * xyzw[k];
      *angle = atan2(2.f * sqrt(twist * rest), rest - twist);
    }
  }
}

// v (3) = map (9) v
INLINE void mapped(const REAL* map, REAL* v) {
  const REAL x = v[0], y = v[1], z = v[2];
  UNROLL
  for (int a = 0; a < 3; a++) v[a] = map[a * 3] * x + map[a * 3 + 1] * y + map[a * 3 + 2] * z;
}

// Jacobian (6, JOINTS) of the errors of tip t, for the joints that move it.
INLINE void tip_jacobian(int t, REAL rotation[NODES][9], REAL origin[NODES][3],
                         const REAL* position, const REAL* maps, REAL jacobian[6][JOINTS]) {
  EACH_COMMON(j, t, t) {
    UNROLL
    for (int a = 0; a < 6; a++) jacobian[a][j] = 0.f;
  }
  UNROLL
  for (int k = 0; k < NODES; k++) {
    if (!ancestor[t * NODES + k]) continue;
    const int j = node_joint[k];
    REAL linear[3], angular[3];
    UNROLL
    for (int a = 0; a < 3; a++) {
      linear[a] = rotation[k][a * 3 + 2] * multiplier[k];
      angular[a] = prismatic[k] ? 0.f : linear[a];
    }
    if (!prismatic[k]) {
      const REAL x = position[0] - origin[k][0], y = position[1] - origin[k][1],
                 z = position[2] - origin[k][2];
      linear[0] = angular[1] * z - angular[2] * y;
      linear[1] = angular[2] * x - angular[0] * z;
      linear[2] = angular[0] * y - angular[1] * x;
    }
    if (position_measure[t] != NOT_ASKED && position_measure[t] != PLAIN) mapped(maps, linear);
    if (orientation_measure[t] != NOT_ASKED && orientation_measure[t] != PLAIN)
      mapped(maps + 9, angular);
    UNROLL
    for (int a = 0; a < 3; a++) {
      if (position_measure[t] != NOT_ASKED)
        jacobian[a][j] += linear[a] * (position_measure[t] == PLAIN ? position_weight[t] : 1.f);
      if (orientation_measure[t] != NOT_ASKED)
        jacobian[3 + a][j] +=
            angular[a] * (orientation_measure[t] == PLAIN ? orientation_weight[t] : 1.f);
    }
  }
}

// y = (J J^T + damping I)^-1 e by a Cholesky factorisation, all ROWS long. Tips that share no
// joints have zeros in common.
INLINE void solve_damped(REAL jacobian[ROWS][JOINTS], const REAL* error, REAL damping, REAL* y) {
  REAL factor[ROWS][ROWS];  // lower triangle; its diagonal holds inverses
  UNROLL
  for (int r = 0; r < ROWS; r++) {
    const int a = r / 6;
    REAL right = error[r];
    UNROLL
    for (int c = 0; c <= r; c++) {
      const int b = c / 6;
      if (!coupled[a * TIPS + b]) continue;
      REAL sum = r == c ? damping : 0.f;
      EACH_COMMON(j, a, b) sum += jacobian[r][j] * jacobian[c][j];
      UNROLL
      for (int m = 0; m < c; m++)
        if (coupled[a * TIPS + m / 6] && coupled[b * TIPS + m / 6])
          sum -= factor[r][m] * factor[c][m];
      if (c < r) {
        factor[r][c] = sum * factor[c][c];
        right -= factor[r][c] * y[c];
      } else {
        factor[r][r] = 1.f / sqrt(sum > 1e-12f ? sum : 1e-12f);
        y[r] = right * factor[r][r];
      }
    }
  }
  UNROLL
  for (int r = ROWS - 1; r >= 0; r--) {
    REAL right = y[r];
    UNROLL
    for (int m = r + 1; m < ROWS; m++)
      if (coupled[r / 6 * TIPS + m / 6]) right -= factor[m][r] * y[m];
    y[r] = right * factor[r][r];
  }
}

// Product of column j of the Jacobian with a vector (ROWS).
INLINE REAL column_product(REAL jacobian[ROWS][JOINTS], int j, const REAL* vector) {
  REAL sum = 0.f;
  UNROLL
  for (int t = 0; t < TIPS; t++)
    if (moves[t * JOINTS + j]) {
      UNROLL
      for (int a = 0; a < 6; a++) sum += jacobian[t * 6 + a][j] * vector[t * 6 + a];
    }
  return sum;
}

// q += J^T (J J^T + damping)^-1 e over the joints that are free, cut to the limits; the formula is
// that of `kernels.step`. A sample that slides is pulled towards the reference within the null space
// of the errors. y (ROWS) is the solution before, and then this one. Returns the largest motion.
INLINE REAL damped_step(REAL* q, const REAL* reference, REAL* error, REAL jacobian[ROWS][JOINTS],
                        REAL* y, int slides) {
  REAL pull[JOINTS], energy = 0.f;
  UNROLL
  for (int r = 0; r < ROWS; r++) energy += error[r] * error[r];
  UNROLL
  for (int j = 0; j < JOINTS; j++) {
    const REAL away = reference[j] - q[j];
    pull[j] = !slides ? 0.f : continuous[j] ? wrapped(away) : away;
    const int at_upper = q[j] >= upper_bound[j], at_lower = q[j] <= lower_bound[j];
    if (!moves_any[j] || (!at_upper && !at_lower)) continue;
    const REAL outward =
        slides ? column_product(jacobian, j, y) + pull[j] : column_product(jacobian, j, error);
    if ((at_upper && outward > 0.f) || (at_lower && outward < 0.f)) {
      pull[j] = 0.f;
      UNROLL
      for (int r = 0; r < ROWS; r++) jacobian[r][j] = 0.f;
    }
  }
  if (slides) {
    UNROLL
    for (int t = 0; t < TIPS; t++) EACH_COMMON(j, t, t) {
      UNROLL
      for (int a = 0; a < 6; a++) error[t * 6 + a] -= jacobian[t * 6 + a][j] * pull[j];
    }
  }
  solve_damped(jacobian, error, energy * DAMPING_FACTOR + DAMPING_FLOOR, y);
  const REAL most = slides ? LONGEST_SLIDE : MAX_STEP;
  REAL longest = most, motion = 0.f;
  UNROLL
  for (int j = 0; j < JOINTS; j++) {
    pull[j] += column_product(jacobian, j, y);
    longest = fmax(longest, fabs(pull[j]));
  }
  const REAL scale = most / longest;
  UNROLL
  for (int j = 0; j < JOINTS; j++) {
    const REAL before = q[j];
    q[j] = fmin(fmax(before + pull[j] * scale, lower_bound[j]), upper_bound[j]);
    motion = fmax(motion, fabs(q[j] - before));
  }
  return motion;
}

// Steps of one sample q (JOINTS) until it converges; returns CONVERGED or FAILED.
//   wanted (TIPS, 16); reference (JOINTS), where it slides to; precision (TIPS, 2): inverse squares
//   of the tolerances; iterations: steps at most, but for those of a slide; sliding: STAY,
//   SLIDE_AFTERWARDS or SLIDE_AT_ONCE; part: which alone counts, or -1.
INLINE int descend_sample(REAL* q, const REAL* wanted, const REAL* reference,
                          const double* precision, int iterations, int sliding, int part) {
  REAL y[ROWS], motion = sliding == SLIDE_AFTERWARDS ? 0.f : 1.f;
  int slides = sliding == SLIDE_AT_ONCE;
  UNROLL
  for (int r = 0; r < ROWS; r++) y[r] = 0.f;
  UNROLL
  for (int j = 0; j < JOINTS; j++) q[j] = fmin(fmax(q[j], lower_bound[j]), upper_bound[j]);
  for (int age = 0;; age++) {
    REAL rotation[NODES][9], origin[NODES][3], position[TIPS][3], error[ROWS], maps[TIPS][18];
    REAL jacobian[ROWS][JOINTS], ratio = 0.f;
    node_poses(q, rotation, origin);
    UNROLL
    for (int t = 0; t < TIPS; t++) {
      REAL reached[9];
      tip_pose(t, rotation, origin, reached, position[t]);
      const REAL size = tip_error(t, reached, position[t], wanted + t * 16, precision,
                                  error + t * 6, maps[t]);
      if (COUNTS(t, part)) {
        ratio += size;
      } else {
        for (int a = 0; a < 6; a++) error[t * 6 + a] = 0.f;
      }
    }
    int done = ratio <= 1.f, limit = iterations;
    if (slides) {
      limit = iterations + SLIDING_STEPS;
      done = done && motion <= STILL;
      // It had converged, so it will again.
      if (sliding == SLIDE_AFTERWARDS && age >= limit) done = 1;
    } else if (sliding != STAY && done) {
      slides = 1;
      age = iterations;
      done = 0;
      limit = iterations + 1;
    }
    if (done || age >= limit) return done ? CONVERGED : FAILED;
    UNROLL
    for (int t = 0; t < TIPS; t++) {
      tip_jacobian(t, rotation, origin, position[t], maps[t], jacobian + t * 6);
      if (!COUNTS(t, part)) EACH_COMMON(j, t, t) {
        for (int a = 0; a < 6; a++) jacobian[t * 6 + a][j] = 0.f;
      }
      if (ENTERING) EACH_COMMON(j, t, t) {
        for (int a = 0; a < 6; a++)
          jacobian[t * 6 + a][j] *= (REAL)precision[TIPS * 4 + t * 2 + a / 3];
      }
    }
    motion = damped_step(q, reference, error, jacobian, y, slides);
  }
}
