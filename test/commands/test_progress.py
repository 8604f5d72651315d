# SPDX-License-Identifier: Apache-2.0
"""The progress bar of a training run."""

from meanflow_ik_core.commands.progress import progress_bar


def test_the_bar_shows_share_loss_and_rate(capsys):
    with progress_bar() as show:
        show(0.25, 1.5, 300.0)
    printed = capsys.readouterr().out
    assert "25%" in printed and "loss 1.5000" in printed and "300 samples/s" in printed
