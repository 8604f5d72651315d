// SPDX-License-Identifier: Apache-2.0
// What a search does with starts besides the steps in float: draw them, make them exact, judge them,
// complete them part by part, choose among them. All as `kernels.search`, `refinement`,
// `recombination` and `selection` have it. Stands after least_squares.h and counter_stream.h, see
// `generated.py`; compiled in double.
//
// B problems have count candidates each: q (B, count, JOINTS), errors (B, count, TIPS, 2) and so on.

#define SEED -1     // in place of the number of a start
#define NOTHING -2  // no candidate

// Starts q and their numbers; the first is the seed (B, JOINTS) if seeded, the others are number
// first and on: given (B, num_given, JOINTS) of which the first is start number first, or uniform.
KERNEL void draw(const unsigned long long* keys, const double* seeds, const float* given, double* q,
                 int* start, int count, int seeded, int first, int num_given, int rows) {
  EACH_ROW(row, rows) {
    const int problem = row / count, own = row % count - seeded;
    double* sample = q + (long long)row * JOINTS;
    start[row] = own < 0 ? SEED : first + own;
    for (int j = 0; j < JOINTS; j++) {
      if (own < 0)
        sample[j] = seeds[(long long)problem * JOINTS + j];
      else if (own < num_given)
        sample[j] = given[((long long)problem * num_given + own) * JOINTS + j];
      else
        sample[j] = limits[j * 2] + unit(keys[problem], first + own, j) *
                                        (limits[j * 2 + 1] - limits[j * 2]);
    }
  }
}

// Complete failed samples of a problem, part by part, with what others found: `recombination`.
// A block for each problem. again: only lost problems (B), of which all samples have failed.
//   have (B, count) is room to work in: which samples have a part, in their order.
KERNEL void recombine(const unsigned char* lost, double* q, unsigned char* outcome,
                      const int* found, int* have, int count, int again, int problems) {
  EACH_BLOCK(problem, lane, problems) {
    SHARED int haves[LANES];
    SHARED int needs[LANES];
    if (!again || lost[problem]) {
      const long long begin = (long long)problem * count;
      const int share = (count + LANES - 1) / LANES;  // consecutive samples of a thread
      const int first = lane * share, end = first + share < count ? first + share : count;
      int complete = 1;
      for (int part = 0; part < PARTS; part++) {
        haves[lane] = needs[lane] = 0;
        for (int n = first; n < end; n++) {
          const int is_found = found[begin + n] >> part & 1;
          haves[lane] += is_found;
          needs[lane] += !is_found && outcome[begin + n] == FAILED;
        }
        SYNC
        int total = 0, next = 0, turn = 0;
        for (int other = 0; other < LANES; other++) {
          total += haves[other];
          next += other < lane ? haves[other] : 0;
          turn += other < lane ? needs[other] : 0;
        }
        for (int n = first; n < end; n++)
          if (found[begin + n] >> part & 1) have[begin + next++] = n;
        SYNC
        complete &= total > 0;
        // One after another, with a shift per part so that not the same samples meet again.
        turn += part * total / PARTS;
        for (int n = first; n < end && total > 0; n++) {
          if (outcome[begin + n] != FAILED || found[begin + n] >> part & 1) continue;
          const int source = have[begin + turn++ % total];
          for (int j = 0; j < JOINTS; j++)
            if (joint_part[j] == part)
              q[(begin + n) * JOINTS + j] = q[(begin + source) * JOINTS + j];
        }
        SYNC
      }
      for (int n = first; complete && n < end; n++)
        if (outcome[begin + n] == FAILED) outcome[begin + n] = CONVERGED;
    }
  }
}

// Which problems have no solution among several finite starts, so that each part is to be refined
// without the others; their samples count as failed.
KERNEL void find_lost(const unsigned char* valid, unsigned char* outcome, int* found,
                      unsigned char* lost, int count, int problems) {
  EACH_ROW(problem, problems) {
    const long long begin = (long long)problem * count;
    lost[problem] = count > 1;
    for (int n = 0; n < count; n++)
      if (valid[begin + n] || outcome[begin + n] == OPEN) lost[problem] = 0;
    for (int n = 0; lost[problem] && n < count; n++) {
      outcome[begin + n] = FAILED;
      found[begin + n] = 0;
    }
  }
}

// Exact errors (TIPS, 2) of q (JOINTS).
INLINE void measure(const double* q, const double* wanted, double* errors) {
  double rotation[NODES][9], origin[NODES][3], reached[9], position[3];
  node_poses(q, rotation, origin);
  for (int t = 0; t < TIPS; t++) {
    tip_pose(t, rotation, origin, reached, position);
    exact_error(t, reached, position, wanted + t * 16, errors + t * 2, errors + t * 2 + 1);
  }
}

// Bring one part of lost problems' samples to its end, and note whether it is found.
KERNEL void finish_part(const double* settings, const double* target, const unsigned char* lost,
                        double* q, unsigned char* outcome, int* found, int count, int part,
                        int rows) {
  EACH_ROW(row, rows) {
    const int problem = row / count;
    const double* wanted = target + (long long)problem * TIPS * 16;
    double* sample = q + (long long)row * JOINTS;
    if (lost[problem] && row % count < ALONE) {
      double errors[TIPS * 2];
      if (outcome[row] == CONVERGED)
        descend_sample(sample, wanted, sample, settings + FINE, FINE_ITERATIONS, STAY, part);
      measure(sample, wanted, errors);
      int is_found = 1;
      for (int i = 0; i < TIPS * 2; i++)
        if (tip_part[i / 2] == part && !(errors[i] <= settings[TOLERANCES + i])) is_found = 0;
      found[row] |= is_found << part;
      outcome[row] = FAILED;
    }
  }
}

// Steps in double where those in float came close; then what a candidate is worth: errors, valid,
// distance to the reference and cost. which: ALL candidates; without further steps, those that
// ENTERED tolerances, or those of LOST problems.
KERNEL void finish(const double* settings, const double* target, const double* reference,
                   const unsigned char* lost, double* q, const unsigned char* outcome,
                   double* errors, double* distance, double* cost, unsigned char* valid, int count,
                   int which, int rows) {
  EACH_ROW(row, rows) {
    const int problem = row / count;
    double* sample = q + (long long)row * JOINTS;
    double* error = errors + (long long)row * TIPS * 2;
    if (which == ALL || (which == LOST ? lost[problem] : outcome[row] == ENTERED)) {
      const double* wanted = target + (long long)problem * TIPS * 16;
      double own[JOINTS], aim[TIPS * 16], square = 0., sum = 0.;
      int is_valid = 1;
      UNROLL
      for (int j = 0; j < JOINTS; j++) own[j] = sample[j];
      UNROLL
      for (int i = 0; i < TIPS * 16; i++) aim[i] = wanted[i];
      if (which == ALL && outcome[row] == CONVERGED)
        descend_sample(own, aim, own, settings + FINE, FINE_ITERATIONS, STAY, -1);
      if (outcome[row] != OPEN) {
        UNROLL
        for (int j = 0; j < JOINTS; j++) {
          const double x = continuous[j] ? wrapped(own[j]) : own[j];
          own[j] = fmin(fmax(x, limits[j * 2]), limits[j * 2 + 1]);
        }
        measure(own, aim, error);
      }
      for (int i = 0; i < TIPS * 2; i++) {
        if (outcome[row] == OPEN) error[i] = INFINITY;
        is_valid &= error[i] <= settings[TOLERANCES + i];
        sum += error[i];
      }
      UNROLL
      for (int j = 0; j < JOINTS; j++) {
        const double away = own[j] - reference[(long long)problem * JOINTS + j];
        const double delta = continuous[j] ? wrapped(away) : away;
        square += delta * delta;
        sample[j] = own[j];
      }
      valid[row] = is_valid;
      distance[row] = sqrt(square);
      cost[row] = settings[ERROR_WEIGHT] * sum + settings[DISTANCE_WEIGHT] * distance[row];
    }
  }
}

// Whether candidate n comes before another one (-1: none): by a key, then by cost, then in order.
INLINE int is_before(double key, double other_key, const double* cost, int n, int other) {
  if (other < 0 || key < other_key) return 1;
  if (key > other_key) return 0;
  return cost[n] < cost[other] || (cost[n] == cost[other] && n < other);
}

// The first candidate of those that the threads of a block have; -1: none has one.
INLINE int first_of(int lane, double key, int number, const double* cost, double* keys,
                    int* numbers) {
  keys[lane] = key;
  numbers[lane] = number;
  SYNC
  for (int half = LANES / 2; half > 0; half /= 2) {
    if (lane < half) {
      const int other = numbers[lane + half];
      if (other >= 0 && is_before(keys[lane + half], keys[lane], cost, other, numbers[lane])) {
        keys[lane] = keys[lane + half];
        numbers[lane] = other;
      }
    }
    SYNC
  }
  const int found = numbers[0];
  SYNC
  return found;
}

// The rows to return, a block for each problem: valid candidates by `selection.best` or `diverse`,
// then the nearest misses, best first.
//   nearest (B, count) and chosen (B, most) are room to work in; out_q (B, most, JOINTS),
//   out_errors (2, B, most, ALL_TIPS) position and orientation; out_rows (B, most, 4): distance,
//   cost, valid and number of the start.
KERNEL void choose(const double* settings, const double* q, const double* errors,
                   const double* distance, const double* cost, const unsigned char* valid,
                   const int* start, double* nearest, int* chosen, double* out_q,
                   double* out_position, double* out_orientation, double* out_rows, int count,
                   int most, int is_diverse, int problems) {
  EACH_BLOCK(problem, lane, problems) {
    SHARED double keys[LANES];
    SHARED int numbers[LANES];
    const long long begin = (long long)problem * count, out = (long long)problem * most;
    const double separation = settings[SEPARATION];
    int* rows = chosen + out;
    int num = 0, num_valid = 0;
    // How far a valid candidate is from those chosen, squared; -1 where it is out of the choice.
    for (int n = lane; n < count; n += LANES) nearest[begin + n] = valid[begin + n] ? INFINITY : -1.;
    while (num < most) {
      int best = -1;
      double best_key = INFINITY;
      for (int n = lane; n < count; n += LANES) {
        if (nearest[begin + n] < 0.) continue;
        const double key = is_diverse && num > 0 ? -nearest[begin + n] : cost[begin + n];
        if (is_before(key, best_key, cost + begin, n, best)) {
          best = n;
          best_key = key;
        }
      }
      best = first_of(lane, best_key, best, cost + begin, keys, numbers);
      if (best < 0) break;
      if (lane == 0) rows[num] = best;
      num++;
      if (num == most) break;
      for (int n = lane; n < count; n += LANES) {
        if (nearest[begin + n] < 0.) continue;
        double square = 0., largest = 0.;
        for (int j = 0; j < JOINTS; j++) {
          const double away = q[(begin + n) * JOINTS + j] - q[(begin + best) * JOINTS + j];
          const double delta = fabs(continuous[j] ? wrapped(away) : away);
          square += delta * delta;
          largest = fmax(largest, delta);
        }
        if (n == best || largest < separation)
          nearest[begin + n] = -1.;
        else
          nearest[begin + n] = fmin(nearest[begin + n], square);
      }
    }
    num_valid = num;
    for (int n = lane; n < count && num < most; n += LANES)
      nearest[begin + n] = !valid[begin + n] && cost[begin + n] < INFINITY ? 1. : -1.;
    while (num < most) {
      int best = -1;
      double best_key = INFINITY;
      for (int n = lane; n < count; n += LANES)
        if (nearest[begin + n] > 0. && cost[begin + n] < best_key) {
          best = n;
          best_key = cost[begin + n];
        }
      best = first_of(lane, best_key, best, cost + begin, keys, numbers);
      if (best < 0) break;
      if (best % LANES == lane) nearest[begin + best] = -1.;
      if (lane == 0) rows[num] = best;
      num++;
    }
    SYNC
    for (int m = lane; m < most; m += LANES) {
      int place = m;
      const long long own = m < num ? begin + rows[m] : -1;
      if (is_diverse && m < num_valid) {
        place = 0;
        for (int i = 0; i < num_valid; i++) {
          const double other = cost[begin + rows[i]];
          place += other < cost[own] || (other == cost[own] && rows[i] < rows[m]);
        }
      }
      for (int j = 0; j < JOINTS; j++)
        out_q[(out + place) * JOINTS + j] = own < 0 ? NAN : q[own * JOINTS + j];
      for (int t = 0; t < ALL_TIPS; t++) {
        const int asked = tip_error_of[t];
        const double none = own < 0 ? INFINITY : 0.;
        out_position[(out + place) * ALL_TIPS + t] =
            own < 0 || asked < 0 ? none : errors[(own * TIPS + asked) * 2];
        out_orientation[(out + place) * ALL_TIPS + t] =
            own < 0 || asked < 0 ? none : errors[(own * TIPS + asked) * 2 + 1];
      }
      double* row = out_rows + (out + place) * 4;
      row[0] = own < 0 ? INFINITY : distance[own];
      row[1] = own < 0 ? INFINITY : cost[own];
      row[2] = own < 0 ? 0. : valid[own];
      row[3] = own < 0 ? NOTHING : start[own];
    }
  }
}
