"""Loss on windows that are held out and on windows that are trained on: compare.py CHECKPOINT HELD.tar TRAIN.tar.

With the averaged weights, the mean over five operating points and 96 windows each. Run with ``PYTHONPATH=.``.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from dcu.data import items
from dcu.nets.variable_rate import evenly_spaced
from dcu.train.checkpoint import Checkpoint
from dcu.train.recipe import find_recipe
from dcu.train.variable_rate import VariableRateTask, VariableRateTraining

WINDOWS = 96

recipe = find_recipe("codec-2", [f"data.validate_on={WINDOWS}"]).sections(VariableRateTraining)
found = [item for path in sys.argv[2:] for item in items(Path(path))]
task = VariableRateTask(recipe.variable_rate, recipe.data, found, seed=1)
task.module.load_state_dict(Checkpoint(Path(sys.argv[1])).load().average)
task.module.eval()
chosen = np.random.default_rng(5).permutation(len(task.sampler.items))[:WINDOWS]
points = evenly_spaced(5)
for name, windows in (("held out", task.held_out[:WINDOWS]), ("trained on", [task.sampler.items[i] for i in chosen])):
    task.held_out = windows
    with torch.no_grad():
        error, bpp = task.measure(points)
    loss = (error + task.recipe.lambda_of(points) * bpp) * task.recipe.weight(points)
    print(f"{name}: {float(loss.mean()):.5f}")
