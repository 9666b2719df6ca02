"""PSNR and MS-SSIM of codec 2 at the bytes of the released codecs: measure.py CHECKPOINT DATA.

By the model's entropy and 18 bytes a file, with the averaged weights, in bf16 where the CPU has it; of at most 96
images of DATA. Of each codec: its own values, codec 2 in as many bytes for each image, and codec 2 at the operating
point whose mean rate is the same. Run with ``PYTHONPATH=.``.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch

from dcu.codec import Codec, analysis_input
from dcu.data import items, shown
from dcu.evaluate.codec import ms_ssim
from dcu.image import psnr
from dcu.nets.variable_rate import VariableRateCodec
from dcu.precision import multiplies_bf16
from dcu.train.checkpoint import Checkpoint
from dcu.train.recipe import find_recipe
from dcu.train.variable_rate import VariableRateTraining, cropped_to_blocks

POINTS = (0, 4, 8, 11, 14, 18, 22, 26, 30, 34, 38, 42, 46, 50, 54, 58)
HEADER_BITS = 8 * 18

recipe = find_recipe("codec-2", []).sections(VariableRateTraining).variable_rate
codec = VariableRateCodec(*recipe.shape()).eval()
codec.load_state_dict(Checkpoint(Path(sys.argv[1])).load().average)
images = [np.ascontiguousarray(cropped_to_blocks(item.image())) for item in shown(items(Path(sys.argv[2])), 96)]


@torch.no_grad()
def at_point(image, q):
    """Bits per pixel, PSNR and MS-SSIM at an operating point."""
    x = analysis_input(torch.from_numpy(image[None]))
    with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16()):
        y, bits = codec(x, torch.tensor([float(q)]))
    decoded = ((y.float() + 1) * 127.5).round().clamp(0, 255).byte()[0].permute(1, 2, 0).numpy()
    return (float(bits) + HEADER_BITS) / x[0, 0].numel(), psnr(image, decoded), ms_ssim(image, decoded)


curves = np.array([[at_point(image, q) for q in POINTS] for image in images])


def quality(curve, bpp):
    """PSNR and MS-SSIM of a curve at a rate."""
    return [float(np.interp(math.log(bpp), np.log(curve[:, 0]), curve[:, k])) for k in (1, 2)]


for name in ("codec-0.0983", "codec-0.330", "codec-0.635"):
    released, rows = Codec.load(name), []
    for image in images:
        data = released.compress(image)
        decoded = released.decode(data)
        rows.append((8 * len(data) / image[..., 0].size, psnr(image, decoded), ms_ssim(image, decoded)))
    bpp, *own = np.mean(rows, 0)
    each = np.mean([quality(curve, row[0]) for curve, row in zip(curves, rows, strict=True)], 0)
    values = (bpp, *own, *each, *quality(curves.mean(0), bpp))
    print("{}: {:.4f} bpp; {:.2f} dB {:.4f}; codec 2 {:.2f} dB {:.4f}; by means {:.2f} dB {:.4f}".format(name, *values))
