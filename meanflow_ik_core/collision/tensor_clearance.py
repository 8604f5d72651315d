# SPDX-License-Identifier: Apache-2.0
"""Distances on spheres of tensors, on any device, with gradients."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels.spheres import closest_spheres

_SPHERES_PER_PASS = 1 << 18  # as many as stay in the caches


class TensorClearance:
    """The spheres of a robot for tensors; see the functions of `SphereModel` by the same names.

    Args:
        model: a `SphereModel`.
        mean: (S, L) what makes the centre of a link's own sphere of those of its spheres.
        link: (S,) that a sphere belongs to.
        radii: (S + L,) m float32, of the spheres, then of those around whole links.
        shift: (L, L) m, the corrections of pairs.
    """

    def __init__(
        self, model: Any, mean: np.ndarray, link: np.ndarray, radii: np.ndarray, shift: np.ndarray
    ):
        self._robot, self._first, self._pairs = model.robot, model.first, model.pairs
        self._node, self._centre, self._radius = model.node, model.centre, model.radius
        self._mean, self._link, self._radii, self._shift = mean, link, radii, shift
        self._correction = model.correction
        self._constants: dict[tuple[torch.dtype, torch.device], dict[str, Any]] = {}

    def distance(self, q: Tensor, cap: float) -> Tensor:
        flat = q.reshape(-1, q.shape[-1])
        if not len(self._pairs) or not len(flat):
            return q.new_full(q.shape[:-1], cap)
        size = max(1, _SPHERES_PER_PASS // len(self._radius))
        some = flat.split(size if flat.device.type == "cpu" else len(flat))
        return torch.cat([self._distance(rows, cap) for rows in some]).reshape(q.shape[:-1])

    def _distance(self, q: Tensor, cap: float) -> Tensor:
        centres = self._centres(q)
        return _known(q, self._gaps(centres, self._closest(centres, cap, True), cap)[0])

    def pair_distances(self, q: Tensor, cap: float) -> Tensor:
        flat = q.reshape(-1, q.shape[-1])
        if not len(self._pairs) or not len(flat):
            return q.new_full((*q.shape[:-1], len(self._pairs)), cap)
        centres = self._centres(flat)
        gaps = self._gaps(centres, self._closest(centres, cap, False), cap)
        return _known(flat, gaps).T.reshape(*q.shape[:-1], len(self._pairs))

    def smooth_distance(self, q: Tensor, temperature: float, cap: float) -> Tensor:
        pairs = self.pair_distances(q, cap)
        if not pairs.shape[-1]:
            return q.new_full(q.shape[:-1], cap)
        return -temperature * torch.logsumexp(-pairs / temperature, -1)

    def _centres(self, q: Tensor) -> Tensor:
        """(N, 3, S) m in the base, of q (N, J)."""
        constants = self._on(q.dtype, q.device)
        rotations, origins = self._robot.node_poses(q)
        parts = []
        for node, local in constants["nodes"]:
            if node < 0:
                parts.append(local.expand(len(q), -1, -1))
            else:
                parts.append(rotations[node] @ local + origins[node][..., None])
        return torch.cat(parts, -1)

    @torch.no_grad()
    def _closest(self, centres: Tensor, cap: float, whole: bool) -> Tensor:
        """Which spheres are closest, (P, N) for every pair of links or (1, N) for all of them;
        -1 beyond the cap."""
        if centres.device.type != "cpu":
            return self._closest_torch(centres, whole)
        centres = torch.cat(
            (centres, centres @ self._on(centres.dtype, centres.device)["mean"]), -1
        )
        columns = centres.float().flatten(1).T.contiguous().numpy()
        return torch.from_numpy(
            closest_spheres(
                columns,
                self._radii,
                self._first,
                self._pairs,
                self._correction.astype(np.float32),
                np.float32(cap),
                whole,
            )
        )

    def _closest_torch(self, centres: Tensor, whole: bool) -> Tensor:
        radius = self._on(centres.dtype, centres.device)["radius"]
        gaps, codes = [], []
        for (a, b), correction in zip(self._pairs.tolist(), self._correction.tolist(), strict=True):
            ours = slice(*self._first[a : a + 2].tolist())
            theirs = slice(*self._first[b : b + 2].tolist())
            offset = centres[:, :, ours, None] - centres[:, :, None, theirs]
            gap = offset.norm(dim=1) - radius[ours, None] - radius[theirs] + correction
            least, where = gap.flatten(1).min(-1)
            width = gap.shape[-1]
            gaps.append(least)
            codes.append((where // width + ours.start) * len(radius) + where % width + theirs.start)
        code = torch.stack(codes)
        return code.gather(0, torch.stack(gaps).argmin(0, keepdim=True)) if whole else code

    def _gaps(self, centres: Tensor, code: Tensor, cap: float) -> Tensor:
        """(R, N) m between the spheres that (R, N) codes name."""
        constants = self._on(centres.dtype, centres.device)
        far, code = code < 0, code.clamp(min=0)
        first, second = code // len(self._radius), code % len(self._radius)
        by_axis = centres.permute(1, 0, 2)  # (3, N, S)

        def chosen(index: Tensor) -> Tensor:
            return by_axis.gather(2, index.T.expand(3, -1, -1))  # (3, N, R)

        offset = chosen(first) - chosen(second)
        radii = constants["radius"][first] + constants["radius"][second]
        link = constants["link"]
        correction = constants["correction"][link[first], link[second]]
        gaps = (offset.square().sum(0) + 1e-18).sqrt().T - radii + correction
        return torch.where(far, cap, gaps.clamp(max=cap))

    @torch.inference_mode(False)  # what is kept must be able to take part in gradients later
    def _on(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        key = (dtype, device)
        if key not in self._constants:
            centre = torch.as_tensor(self._centre, dtype=dtype, device=device)
            nodes = []
            for node in np.unique(self._node).tolist():
                rows = np.flatnonzero(self._node == node)
                nodes.append((node, centre[rows[0] : rows[-1] + 1].T.contiguous()))
            radius = torch.as_tensor(self._radius, dtype=dtype, device=device)
            mean = torch.as_tensor(self._mean, dtype=dtype, device=device)
            self._constants[key] = {
                "nodes": nodes,
                "radius": radius,
                "mean": mean,
                "link": torch.as_tensor(self._link, device=device),
                "correction": torch.as_tensor(self._shift, dtype=dtype, device=device),
            }
        return self._constants[key]


def _known(q: Tensor, gaps: Tensor) -> Tensor:
    """Distances (..., N), those of configurations (N, J) that are not finite being NaN."""
    return torch.where(q.isfinite().all(-1), gaps, torch.nan)
