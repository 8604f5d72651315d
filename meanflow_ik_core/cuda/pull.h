// SPDX-License-Identifier: Apache-2.0
// The pull of the training loss: one damped step of one sample, in float. Stands after
// kinematics.h, see `generated.py`.

// Errors (ROWS) to the targets and their Jacobian (ROWS, JOINTS), zeros for what is not given.
INLINE void linearise(const float* q, const float* target, const unsigned char* given,
                      float* error, float jacobian[ROWS][JOINTS]) {
  float rotation[NODES][9], origin[NODES][3];
  node_poses(q, rotation, origin);
  UNROLL
  for (int r = 0; r < ROWS; r++) {
    UNROLL
    for (int j = 0; j < JOINTS; j++) jacobian[r][j] = 0.f;
  }
  UNROLL
  for (int t = 0; t < TIPS; t++) {
    float reached[9], position[3], turn[9];
    tip_pose(t, rotation, origin, reached, position);
    const float* wanted = target + t * 16;
    UNROLL
    for (int a = 0; a < 3; a++) {
      UNROLL
      for (int b = 0; b < 3; b++)
        turn[a * 3 + b] = wanted[a * 4] * reached[b * 3] + wanted[a * 4 + 1] * reached[b * 3 + 1] +
                          wanted[a * 4 + 2] * reached[b * 3 + 2];
    }
    const float x = .5f * (turn[7] - turn[5]), y = .5f * (turn[2] - turn[6]),
                z = .5f * (turn[3] - turn[1]);
    const float sine = sqrtf(x * x + y * y + z * z);
    const float cosine = .5f * (turn[0] + turn[4] + turn[8] - 1.f);
    const float scale = sine > 1e-6f ? atan2f(sine, cosine) / sine : 1.f;
    const float by_position = given[t * 2] ? 1.f : 0.f, by_turn = given[t * 2 + 1] ? 1.f : 0.f;
    // Chosen, not multiplied: what is not given may hold anything.
    UNROLL
    for (int a = 0; a < 3; a++)
      error[t * 6 + a] = given[t * 2] ? wanted[a * 4 + 3] - position[a] : 0.f;
    error[t * 6 + 3] = given[t * 2 + 1] ? x * scale : 0.f;
    error[t * 6 + 4] = given[t * 2 + 1] ? y * scale : 0.f;
    error[t * 6 + 5] = given[t * 2 + 1] ? z * scale : 0.f;
    UNROLL
    for (int k = 0; k < NODES; k++) {
      if (!ancestor[t * NODES + k]) continue;
      const int j = node_joint[k];
      const float ax = rotation[k][2] * multiplier[k], ay = rotation[k][5] * multiplier[k],
                  az = rotation[k][8] * multiplier[k];
      float linear[3] = {ax, ay, az}, angular[3] = {0.f, 0.f, 0.f};
      if (!prismatic[k]) {
        const float dx = position[0] - origin[k][0], dy = position[1] - origin[k][1],
                    dz = position[2] - origin[k][2];
        linear[0] = ay * dz - az * dy;
        linear[1] = az * dx - ax * dz;
        linear[2] = ax * dy - ay * dx;
        angular[0] = ax;
        angular[1] = ay;
        angular[2] = az;
      }
      UNROLL
      for (int a = 0; a < 3; a++) {
        jacobian[t * 6 + a][j] += by_position * linear[a];
        jacobian[t * 6 + 3 + a][j] += by_turn * angular[a];
      }
    }
  }
}

// y = (J J^T + damping I)^-1 e by a Cholesky factorisation, all ROWS long.
INLINE void solve_damped(float jacobian[ROWS][JOINTS], const float* error, float damping,
                         float* y) {
  float factor[ROWS][ROWS];  // lower triangle; its diagonal holds inverses
  UNROLL
  for (int r = 0; r < ROWS; r++) {
    float right = error[r];
    UNROLL
    for (int c = 0; c <= r; c++) {
      float sum = r == c ? damping : 0.f;
      UNROLL
      for (int j = 0; j < JOINTS; j++) sum += jacobian[r][j] * jacobian[c][j];
      UNROLL
      for (int m = 0; m < c; m++) sum -= factor[r][m] * factor[c][m];
      if (c < r) {
        factor[r][c] = sum * factor[c][c];
        right -= factor[r][c] * y[c];
      } else {
        factor[r][r] = 1.f / sqrtf(sum > 1e-12f ? sum : 1e-12f);
        y[r] = right * factor[r][r];
      }
    }
  }
  UNROLL
  for (int r = ROWS - 1; r >= 0; r--) {
    float right = y[r];
    UNROLL
    for (int m = r + 1; m < ROWS; m++) right -= factor[m][r] * y[m];
    y[r] = right * factor[r][r];
  }
}

// q (JOINTS) after one damped least-squares step towards target (TIPS, 16), within the limits; the
// formula of `losses.damped_step`. given (TIPS, 2): whether position and orientation count.
INLINE void damped_step(float* q, const float* target, const unsigned char* given) {
  float error[ROWS], jacobian[ROWS][JOINTS], y[ROWS], step[JOINTS];
  linearise(q, target, given, error, jacobian);
  float square = 0.f, longest = 1e-9f;
  UNROLL
  for (int r = 0; r < ROWS; r++) square += error[r] * error[r];
  solve_damped(jacobian, error, DAMPING * (square + 1e-3f), y);
  UNROLL
  for (int j = 0; j < JOINTS; j++) {
    float sum = 0.f;
    UNROLL
    for (int r = 0; r < ROWS; r++) sum += jacobian[r][j] * y[r];
    step[j] = sum;
    longest = fmaxf(longest, fabsf(sum));
  }
  const float shorter = fminf(1.f, MAX_STEP / longest);
  UNROLL
  for (int j = 0; j < JOINTS; j++)
    q[j] = fminf(fmaxf(q[j] + step[j] * shorter, lower[j]), upper[j]);
}
