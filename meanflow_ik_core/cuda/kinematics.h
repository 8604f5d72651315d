// SPDX-License-Identifier: Apache-2.0
// Kinematics of one robot. `generated.py` puts the robot's arrays before this text, as tables of
// REAL numbers, and compiles it for CUDA or for the CPU; it is never compiled alone.
//
// A rotation is 9 numbers by rows, a placement 12: rows of a rotation with its translation.
// A target is 16 numbers, the rows of T_base_tip. Metres and radians.

// product (9) = rotation (9) placement (12), without the translation
INLINE void rotate_placement(const REAL* rotation, const REAL* placement, REAL* product) {
  UNROLL
  for (int a = 0; a < 3; a++) {
    UNROLL
    for (int b = 0; b < 3; b++)
      product[a * 3 + b] = rotation[a * 3] * placement[b] +
                           rotation[a * 3 + 1] * placement[4 + b] +
                           rotation[a * 3 + 2] * placement[8 + b];
  }
}

// Coordinate a of a placement's translation, seen from the frame (rotation, origin).
INLINE REAL place(const REAL* rotation, const REAL* origin, const REAL* placement, int a) {
  return origin[a] + rotation[a * 3] * placement[3] + rotation[a * 3 + 1] * placement[7] +
         rotation[a * 3 + 2] * placement[11];
}

// Poses in the base of all nodes, for joints q (JOINTS); z is the axis of each node.
INLINE void node_poses(const REAL* q, REAL rotation[NODES][9], REAL origin[NODES][3]) {
  UNROLL
  for (int k = 0; k < NODES; k++) {
    const REAL motion = q[node_joint[k]] * multiplier[k] + offset[k];
    const REAL* placed = placement + k * 12;
    REAL fixed[9];
    if (parent[k] >= 0) {
      const int above = parent[k] >= 0 ? parent[k] : 0;  // also where the branch is not taken
      rotate_placement(rotation[above], placed, fixed);
      UNROLL
      for (int a = 0; a < 3; a++) origin[k][a] = place(rotation[above], origin[above], placed, a);
    } else {
      UNROLL
      for (int a = 0; a < 3; a++) {
        UNROLL
        for (int b = 0; b < 3; b++) fixed[a * 3 + b] = placed[a * 4 + b];
        origin[k][a] = placed[a * 4 + 3];
      }
    }
    REAL c = 1.f, s = 0.f;
    if (!prismatic[k]) SINE_COSINE(motion, s, c);
    UNROLL
    for (int a = 0; a < 3; a++) {
      rotation[k][a * 3] = fixed[a * 3] * c + fixed[a * 3 + 1] * s;
      rotation[k][a * 3 + 1] = fixed[a * 3 + 1] * c - fixed[a * 3] * s;
      rotation[k][a * 3 + 2] = fixed[a * 3 + 2];
      if (prismatic[k]) origin[k][a] += motion * fixed[a * 3 + 2];
    }
  }
}

// Pose (9, 3) in the base of a tip.
INLINE void tip_pose(int tip, REAL rotation[NODES][9], REAL origin[NODES][3],
                     REAL* tip_rotation, REAL* tip_position) {
  const int node = tip_node[tip];
  rotate_placement(rotation[node], tip_placement + tip * 12, tip_rotation);
  UNROLL
  for (int a = 0; a < 3; a++)
    tip_position[a] = place(rotation[node], origin[node], tip_placement + tip * 12, a);
}

INLINE void quaternion(const REAL* m, REAL* xyzw) {  // of a rotation (9), w or the largest >= 0
  const REAL squares[4] = {1.f + m[0] - m[4] - m[8], 1.f - m[0] + m[4] - m[8],
                            1.f - m[0] - m[4] + m[8], 1.f + m[0] + m[4] + m[8]};
  int best = 3;
  for (int i = 0; i < 3; i++)
    if (squares[i] > squares[best]) best = i;
  const REAL twice = sqrt(squares[best]), scale = .5f / twice;
  const REAL x = m[7] - m[5], y = m[2] - m[6], z = m[3] - m[1];
  const REAL xy = m[1] + m[3], xz = m[2] + m[6], yz = m[5] + m[7];
  const REAL rows[4][4] = {{0.f, xy, xz, x}, {xy, 0.f, yz, y}, {xz, yz, 0.f, z}, {x, y, z, 0.f}};
  for (int i = 0; i < 4; i++) xyzw[i] = i == best ? .5f * twice : rows[best][i] * scale;
}
