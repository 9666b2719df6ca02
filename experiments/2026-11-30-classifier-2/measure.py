"""Top-1 accuracy and agreement with the RGB teacher on labeled images: `python measure.py TAR NETWORK...`.

Symbols are those of files; networks for many operating points are measured at those of the three named rates.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dcu import store
from dcu.codec import codec_of
from dcu.data import LABELLED, items
from dcu.evaluate.classifier import class_numbers, standard_view
from dcu.tasks.classify import Classifier
from dcu.tasks.rgb import RgbClassifier
from dcu.train.inputs import network_input

BATCH = 16
RATES = (0.0983, 0.330, 0.635)


@torch.inference_mode()
def main(tar: Path, names: list[str]) -> None:
    """Print a line for the teacher, and one for each network and operating point."""
    found = items(tar, LABELLED)
    networks = [Classifier(model, codec_of(model.identity), engine="pytorch") for model in map(store.find, names)]
    numbers, teacher = torch.tensor(class_numbers(networks[0], found)), RgbClassifier("cpu")
    told = torch.cat([teacher(standard_view(item.image())).logits.argmax(1) for item in found])
    print(f"{'teacher':18}      top-1 {float((told == numbers).float().mean()):.4f}, {len(found)} images")
    for network in networks:
        codec = network.codec
        points = [codec.point_of_rate(rate) for rate in RATES] if codec.points > 1 else [0]
        for point in points:
            answers = []
            for start in range(0, len(found), BATCH):
                views = torch.cat([standard_view(item.image()) for item in found[start : start + BATCH]])
                at = torch.full((len(views),), point)
                answers.append(network.network(network_input(codec, "latent", views, at, network.planes)).argmax(1))
            answer = torch.cat(answers)
            right, alike = (float((answer == wanted).float().mean()) for wanted in (numbers, told))
            print(f"{network.name:18} q {point:2} top-1 {right:.4f}, agreement {alike:.4f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
