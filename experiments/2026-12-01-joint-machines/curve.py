"""A joint run's streams and reader at several operating points, on images that are not trained on.

    python curve.py TAR people|machines CHECKPOINT [CLASSIFIER]

``TAR`` is imagenet50-train.tar, ``CHECKPOINT`` that of a joint run, or that of a codec, with the classifier that its
reader begins with. Of the 250 held-out images the first 248, standard view. Prints CSV: means and a standard error.
"""

import csv
import sys
from pathlib import Path

import torch

from dcu.codec import analysis_input
from dcu.data import gather, replaceable
from dcu.evaluate.classifier import standard_view
from dcu.geometry import POINTS
from dcu.train.init import initialize
from dcu.train.joint import JointTask, JointTraining
from dcu.train.recipe import find_recipe
from dcu.train.student import divergence_from

QUALITIES = (0, 8, 16, 24, 32, 40, 48)
COUNT, BATCH = 248, 8


@torch.no_grad()
def measured(task: JointTask, views: torch.Tensor, point: int) -> torch.Tensor:
    """bpp, PSNR, KL divergence from the teacher and agreement with it, a row for each view."""
    network, x = task.module, analysis_input(views)
    q, target = torch.full((len(x),), float(point)), task.teacher(views).target
    with torch.autocast("cpu", torch.bfloat16):
        latent = network.scaled(x, q).float()
        logits = network.reader(task.read(latent.round(), q)).float()
        image = network.reconstruct(latent.round(), q).float()
    _, bits = network.coded(x, latent, q)
    psnr = 10 * torch.log10(4 / (image.clamp(-1, 1) - x).square().mean((1, 2, 3)))
    agrees = (logits.argmax(1) == target.argmax(1)).float()
    return torch.stack([bits / x[0, 0].numel(), psnr, divergence_from(target, logits), agrees], 1)


def main(tar: str, streams: str, sources: list[str]) -> None:
    """Print a line for each operating point."""
    parts = find_recipe("codec-2-machines", ["data.validate_on=250"]).sections(JointTraining)
    task = JointTask(parts.variable_rate, parts.reader, parts.data, replaceable(gather([Path(tar)])), 1)
    initialize(task, sources)
    task.module.eval()
    views = torch.cat([standard_view(item.image()) for item in task.held_out[:COUNT]])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["streams", "quality", "bpp", "psnr", "divergence", "divergence_se", "agreement"])
    for quality in QUALITIES:
        point = quality + POINTS * (streams == "machines")
        table = torch.cat([measured(task, batch, point) for batch in views.split(BATCH)])
        bpp, psnr, divergence, agreement = table.mean(0).tolist()
        error = float(table[:, 2].std()) / len(table) ** 0.5
        figures = [f"{bpp:.4f}", f"{psnr:.2f}", f"{divergence:.4f}", f"{error:.3f}", f"{agreement:.3f}"]
        writer.writerow([streams, quality, *figures])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
