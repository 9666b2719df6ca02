"""PSNR of kodak-odd at three rates, and errors of patches of one color: measure.py CHECKPOINT kodak-odd.tar.

By the model's entropy, with the averaged weights, in bf16 where the CPU has it. Run with ``PYTHONPATH=.``.
"""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import torch

from dcu.codec import analysis_input
from dcu.data import items
from dcu.nets.variable_rate import VariableRateCodec
from dcu.precision import multiplies_bf16
from dcu.train.checkpoint import Checkpoint
from dcu.train.recipe import find_recipe
from dcu.train.variable_rate import VariableRateTraining

POINTS = (0, 10, 14, 18, 24, 28, 32, 36, 40, 44, 48)
RATES = (0.0801, 0.2774, 0.5418)

recipe = find_recipe("codec-2", []).sections(VariableRateTraining).variable_rate
codec = VariableRateCodec(*recipe.shape()).eval()
codec.load_state_dict(Checkpoint(Path(sys.argv[1])).load().average)


@torch.no_grad()
def decoded(x, q):
    """Images in 0..255, as x, and bits; both at one operating point."""
    with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16()):
        image, bits = codec(x, torch.full((len(x),), float(q)))
    return ((image.float() + 1) * 127.5).round().clamp(0, 255), bits


curve = []
for item in items(Path(sys.argv[2])):
    x = analysis_input(torch.from_numpy(np.array(item.image())[None]))
    for q in POINTS:
        image, bits = decoded(x, q)
        error = float((image - (x + 1) * 127.5).square().mean())
        curve.append((float(bits) / x[0, 0].numel(), 10 * math.log10(255**2 / error)))
bpp, psnr = np.array(curve).reshape(-1, len(POINTS), 2).mean(0).T
for q, *point in zip(POINTS, bpp, psnr, strict=True):
    print("q {}: {:.4f} bpp, {:.2f} dB".format(q, *point))
for rate in RATES:
    print(f"{rate} bpp: {np.interp(math.log(rate), np.log(bpp), psnr):.2f} dB")
colors = np.array(
    [*itertools.product((0, 255), repeat=3), *np.random.default_rng(0).integers(0, 256, (50, 3))], np.uint8
)
x = analysis_input(torch.from_numpy(colors[:, None, None]).expand(-1, 64, 64, 3))
for q in (0, 32, 63):
    print(f"q {q}: largest error of patches of one color {float((decoded(x, q)[0] - (x + 1) * 127.5).abs().max()):.0f}")
