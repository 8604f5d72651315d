// SPDX-License-Identifier: Apache-2.0
// Random numbers from counters, those of `kernels.counter_stream`.

#define GOLDEN 0x9E3779B97F4A7C15ull

INLINE unsigned long long hashed(unsigned long long key, unsigned long long counter) {
  unsigned long long x = key + (counter + 1) * GOLDEN;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// A number in [0, 1) of a sample's joint.
INLINE double unit(unsigned long long key, int sample, int joint) {
  return (double)(hashed(hashed(key, sample), joint) >> 11) * 0x1p-53;
}

// Standard normal numbers z (B, count, JOINTS) from keys (B), a sample's number being first and on
// (Box and Muller 1958).
KERNEL void normal(const unsigned long long* keys, float* z, int first, int count, int rows) {
  EACH_ROW(row, rows) {
    const unsigned long long key = hashed(keys[row / count], first + row % count);
    float* own = z + (long long)row * JOINTS;
    for (int j = 0; j < JOINTS; j += 2) {
      const unsigned long long bits = hashed(key, j);
      const float part = (float)((bits >> 40) + 1) * 0x1p-24f;
      const float radius = sqrt(-2.f * log(part));
      const float turn = (float)(bits & 0xFFFFFF) * (6.283185307179586f * 0x1p-24f);
      own[j] = radius * cos(turn);
      if (j + 1 < JOINTS) own[j + 1] = radius * sin(turn);
    }
  }
}
