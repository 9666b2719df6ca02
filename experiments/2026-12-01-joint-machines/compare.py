"""Streams for machines beside streams for people at equal bits: prints a table of each run in results.csv.

Between operating points all is interpolated over the logarithm of bpp. A run whose streams for people were not measured
is compared with the start.
"""

import csv
from pathlib import Path

import numpy as np

RATES = (0.06, 0.0983, 0.154, 0.256, 0.33, 0.635)
COLUMNS = ("bpp", "psnr", "divergence", "agreement")

curves: dict[tuple[str, ...], np.ndarray] = {}
for row in csv.DictReader((Path(__file__).parent / "results.csv").open()):
    point = np.array([[float(row[name]) for name in COLUMNS]])
    key = (row["run"], row["steps"], row["streams"])
    curves[key] = np.concatenate([curves[key], point]) if key in curves else point
for (run, steps, streams), machines in curves.items():
    if streams == "people":
        continue
    people = curves.get((run, steps, "people"), curves["start", "0", "people"])
    print(f"{run}, {steps} steps")
    for bpp in RATES:
        theirs, ours = (
            [float(np.interp(np.log(bpp), np.log(curve[:, 0]), curve[:, column])) for column in (1, 2, 3)]
            for curve in (people, machines)
        )
        same = float(np.exp(np.interp(-ours[1], -people[:, 2], np.log(people[:, 0]))))  # bpp of people with this KL
        gain = f"PSNR {ours[0] - theirs[0]:+.2f} dB, agreement {100 * (ours[2] - theirs[2]):+.1f} points"
        print(f"  {bpp:.4f} bpp: KL {theirs[1]:.2f}, {ours[1]:.2f}, {100 * (1 - bpp / same):+.0f} % fewer bits, {gain}")
