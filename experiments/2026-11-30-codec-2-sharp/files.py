"""Files of codec-2: files.py kodak-odd.tar imagenet20-train.tar imagenet20-val.tar.

Prints PSNR and MS-SSIM between neighboring operating points at three rates, errors of patches of one color, use and
time of byte budgets (500 images), and the time from bytes to latent beside the codec of the same rate (40 images). One
core.
"""

import itertools
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

from dcu.codec import Codec
from dcu.data import items, shown
from dcu.errors import UsageError
from dcu.evaluate.codec import ms_ssim
from dcu.image import psnr

torch.set_num_threads(1)
kodak, train, val = (items(Path(path)) for path in sys.argv[1:])
codec, exact = Codec.load("codec-2"), Codec.load("codec-2", precision="float32")


def timed(call):
    """What a call gives, and its CPU time in ms."""
    started = time.process_time()
    return call(), 1e3 * (time.process_time() - started)


def of_file(image, q):
    """Bits per pixel, PSNR and MS-SSIM of a file."""
    data = exact.compress(image, quality=q)
    decoded = exact.decode(data)
    return 8 * len(data) / image[..., 0].size, psnr(image, decoded), ms_ssim(image, decoded)


for rate, points in ((0.0801, (16, 17, 18)), (0.2774, (36, 37, 38)), (0.5418, (47, 48, 49))):
    bpp, *quality = np.mean([[of_file(item.image(), q) for q in points] for item in kodak], 0).T
    values = [np.interp(math.log(rate), np.log(bpp), each) for each in quality]
    print("{} bpp: {:.2f} dB, {:.4f}".format(rate, *values))

colors = np.array(
    [*itertools.product((0, 255), repeat=3), *np.random.default_rng(0).integers(0, 256, (50, 3))], np.uint8
)
patches = [np.broadcast_to(color, (64, 64, 3)).copy() for color in colors]
for q in (0, 32, 63):
    decoded = [codec.decode(codec.compress(patch, quality=q)).astype(int) for patch in patches]
    print(f"q {q}: largest error of patches of one color {np.abs(np.array(decoded) - patches).max()}")

photographs = [item.image() for item in shown(train, 500)]
for most in (500, 1000, 2500):
    sizes, times = [], []
    for image in photographs:
        try:
            data, budget_ms = timed(lambda image=image, most=most: codec.compress(image, target_bytes=most))
        except UsageError:
            continue  # too many bytes even at q = 0
        q = codec.quality(data)
        times.append((budget_ms, timed(lambda image=image, q=q: codec.compress(image, quality=q))[1]))
        sizes += [len(data)] if q < 63 else []
    budget_ms, plain_ms = np.sum(times, 0)
    print(f"{most} bytes: {len(times)} images, largest {max(sizes)}, mean use {np.mean(sizes) / most:.3f}", end=", ")
    print(f"{budget_ms / plain_ms:.2f} times a plain call")

for rate, name in ((0.0983, "codec-0.0983"), (0.33, "codec-0.330"), (0.635, "codec-0.635")):
    other, q, least = Codec.load(name), codec.point_of_rate(rate), []
    for item in shown(val, 40):
        files = (codec, codec.compress(item.image(), quality=q)), (other, other.compress(item.image()))
        runs = [[timed(lambda c=c, data=data: c.latent(data))[1] for c, data in files] for _ in range(8)]
        least.append(np.min(runs, 0))
    ours, theirs = np.mean(least, 0)
    print(f"bytes to latent at q {q}: {ours:.2f} ms, {name} {theirs:.2f} ms, {ours / theirs:.2f} times")
