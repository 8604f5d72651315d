# SPDX-License-Identifier: Apache-2.0
"""Write the Panda's network as ONNX, and see that ONNX Runtime draws the same samples.

The model maps noise and a target to joint positions: one call, no refinement. Other run times, such
as TensorRT, read it.
"""

import sys
from pathlib import Path

import numpy as np

import meanflow_ik_core as mik

try:
    import onnxruntime
    import torch

    from meanflow_ik_core.network.kinds import load_checkpoint
    from meanflow_ik_core.network.model import denormalise_joints
except ImportError as error:
    raise SystemExit(f"{error}: pip install '.[onnx]'") from None

MODEL = Path(sys.argv[1] if len(sys.argv) > 1 else "panda.onnx")


class OneStep(torch.nn.Module):
    """Noise (B, N, J) and condition (B, C) to joints (B, N, J) in rad or m."""

    def __init__(self, robot: mik.Robot):
        super().__init__()
        self.network, _ = load_checkpoint(None, robot)
        self.lower, self.upper = robot.limits(torch.float32)

    def forward(self, noise: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        x0_hat = self.network.one_step(noise, condition).clamp(-1, 1)
        return denormalise_joints(x0_hat, self.lower, self.upper)


robot = mik.load_robot("panda")
model = OneStep(robot).eval()
targets = torch.tensor(robot.forward(robot.random_configurations(3, np.random.default_rng(0))))
condition = model.network.condition(targets, robot.workspace_scale).float()
noise = torch.randn(3, 100, robot.num_joints, generator=torch.Generator().manual_seed(0))

batch, samples, auto = torch.export.Dim("batch"), torch.export.Dim("samples"), torch.export.Dim.AUTO
torch.onnx.export(
    model, (noise, condition), MODEL, input_names=["noise", "condition"], output_names=["q"],
    dynamic_shapes={"noise": {0: batch, 1: samples}, "condition": {0: auto}}, dynamo=True,
    external_data=False, verbose=False,
)  # fmt: skip
print(f"{MODEL}: {MODEL.stat().st_size / 1e6:.1f} MB")

session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
for rows in (3, 1):  # another batch than the one of the export
    given = {"noise": noise[:rows, :50].numpy(), "condition": condition[:rows].numpy()}
    (q,) = session.run(None, given)
    with torch.inference_mode():
        expected = model(noise[:rows, :50], condition[:rows]).numpy()
    print(f"{rows} targets: largest difference {np.abs(q - expected).max():.1e} rad")
