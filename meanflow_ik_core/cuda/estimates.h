// SPDX-License-Identifier: Apache-2.0
// The data of a training step and the loss of one-step estimates with its gradient, one thread a
// row; on the CPU the rows follow one another. Stands after kinematics.h and pull.h, see
// `generated.py`.

// From joints as shares of their ranges, share (P, JOINTS), and what goals keep, given (P, TIPS, 2):
// x0 (P, JOINTS) in [-1, 1], target (P, TIPS, 16), condition (P, TIPS, CONDITION) of the network.
KERNEL void draw(const float* share, const unsigned char* given, float* x0, float* target,
                 float* condition, int rows) {
  EACH_ROW(row, rows) {
    float q[JOINTS], rotation[NODES][9], origin[NODES][3];
    UNROLL
    for (int j = 0; j < JOINTS; j++) {
      x0[(long long)row * JOINTS + j] = 2.f * share[(long long)row * JOINTS + j] - 1.f;
      q[j] = lower[j] + share[(long long)row * JOINTS + j] * (upper[j] - lower[j]);
    }
    node_poses(q, rotation, origin);
    UNROLL
    for (int t = 0; t < TIPS; t++) {
      float reached[9], position[3], xyzw[4];
      tip_pose(t, rotation, origin, reached, position);
      float* pose = target + ((long long)row * TIPS + t) * 16;
      UNROLL
      for (int a = 0; a < 3; a++) {
        UNROLL
        for (int b = 0; b < 3; b++) pose[a * 4 + b] = reached[a * 3 + b];
        pose[a * 4 + 3] = position[a];
        pose[12 + a] = 0.f;
      }
      pose[15] = 1.f;
      quaternion(reached, xyzw);
      const unsigned char* kept = given + ((long long)row * TIPS + t) * 2;
      float* seen = condition + ((long long)row * TIPS + t) * CONDITION;
      for (int a = 0; a < 3; a++) seen[a] = kept[0] ? position[a] / WORKSPACE_SCALE : 0.f;
      for (int a = 0; a < 4; a++) seen[3 + a] = kept[1] ? xyzw[a] : (a == 3 ? 1.f : 0.f);
      for (int a = 7; a < CONDITION; a++) seen[a] = kept[a - 7] ? 1.f : 0.f;
    }
  }
}

// Dissimilarities of the energy and the kernel score for a squared distance, and their derivatives.
INLINE float energy_of(float square, float* slope) {
  const float base = square + 1e-6f, value = powf(base, .5f * ENERGY_POWER);
  *slope = .5f * ENERGY_POWER * value / base;
  return value;
}
INLINE float kernel_of(float square, float* slope) {
  float value = 0.f;
  *slope = 0.f;
  UNROLL
  for (int i = 0; i < WIDTHS; i++) {
    const float share = expf(-square * sharpness[i]) / WIDTHS;
    value -= share;
    *slope += share * sharpness[i];
  }
  return value;
}

// Both scores between x and other (JOINTS), in a group of joints; weight is 1 / N for the data and
// -1 / (N (N - 1)) for another sample, whose pair is counted twice.
INLINE void add_scores(const float* x, const float* other, const float* in_group, float weight,
                       float counted, float* gradient, float* terms) {
  float normalised = 0.f, in_radians = 0.f, energy_slope, kernel_slope;
  UNROLL
  for (int j = 0; j < JOINTS; j++) {
    const float d = (x[j] - other[j]) * in_group[j], scaled = d * half_range[j];
    normalised += d * d;
    in_radians += scaled * scaled;
  }
  terms[0] += weight * counted * energy_of(normalised, &energy_slope);
  terms[1] += weight * counted * kernel_of(in_radians, &kernel_slope);
  const float of_energy = 2.f * ENERGY_WEIGHT * weight * energy_slope;
  const float of_kernel = 2.f * KERNEL_WEIGHT * weight * kernel_slope;
  UNROLL
  for (int j = 0; j < JOINTS; j++)
    gradient[j] += (x[j] - other[j]) * in_group[j] *
                   (of_energy + of_kernel * half_range[j] * half_range[j]);
}

// Terms (P, SAMPLES, 3) energy, kernel, refine of x0_hat (P, SAMPLES, JOINTS), whose means over
// poses of sums over samples are the losses, and the gradient of their weighted mean. P is the number
// of rows over SAMPLES.
KERNEL void estimate(const float* x0_hat, const float* x0, const float* target,
                     const unsigned char* given, float* gradient, float* terms, int rows) {
  EACH_ROW(row, rows) {
    const int pose = row / SAMPLES, sample = row % SAMPLES;
    const float* samples = x0_hat + (long long)pose * SAMPLES * JOINTS;
    const float* x = samples + sample * JOINTS;
    float q[JOINTS], slope[JOINTS], sums[3] = {0.f, 0.f, 0.f};
    UNROLL
    for (int j = 0; j < JOINTS; j++) {
      q[j] = lower[j] + (x[j] + 1.f) * half_range[j];
      slope[j] = 0.f;
    }
    for (int n = 0; n < SAMPLES; n++) {
      const int is_data = n == sample;  // the place of the pair with itself
      const float* other = is_data ? x0 + (long long)pose * JOINTS : samples + n * JOINTS;
      const float weight = is_data ? 1.f / SAMPLES : -1.f / (SAMPLES * (SAMPLES - 1.f));
      for (int group = 0; group < SCORE_GROUPS; group++)
        add_scores(x, other, score_groups + group * JOINTS, weight * score_weights[group],
                   is_data ? 1.f : .5f, slope, sums);
    }
    for (int step = 0; step < REFINE_STEPS; step++)
      damped_step(q, target + (long long)pose * TIPS * 16, given + (long long)pose * TIPS * 2);
    UNROLL
    for (int j = 0; j < JOINTS; j++) q[j] = x[j] - ((q[j] - lower[j]) / half_range[j] - 1.f);
    for (int group = 0; group < PULL_GROUPS; group++) {
      const float* in_group = pull_groups + group * JOINTS;
      float square = 0.f, count = 0.f;
      UNROLL
      for (int j = 0; j < JOINTS; j++) {
        square += q[j] * q[j] * in_group[j];
        count += in_group[j];
      }
      const float weight = 1.f / (SAMPLES * count * powf(square + REFINE_EPSILON, REFINE_POWER));
      sums[2] += square * weight;
      UNROLL
      for (int j = 0; j < JOINTS; j++)
        slope[j] += 2.f * REFINE_WEIGHT * weight * in_group[j] * q[j];
    }
    UNROLL
    for (int j = 0; j < JOINTS; j++) gradient[(long long)row * JOINTS + j] = slope[j] * SAMPLES / rows;
    UNROLL
    for (int i = 0; i < 3; i++) terms[(long long)row * 3 + i] = sums[i];
  }
}
