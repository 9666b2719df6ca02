"""A rate-distortion curve in the format of CompressAI's result files (InterDigitalInc/CompressAI, folder results/)."""

from __future__ import annotations

import json

from dcu import __version__
from dcu.evaluate.curves import Points, own_name


def result_file(dataset: str, points: Points) -> bytes:
    """The points of one curve as JSON: bpp, PSNR in dB, MS-SSIM where it is known, times per image in seconds."""
    points = sorted(points, key=lambda point: point.bpp)
    columns: dict[str, list[float]] = {"psnr-rgb": [point.psnr for point in points]}
    similarities = [point.ms_ssim for point in points if point.ms_ssim is not None]
    if len(similarities) == len(points):
        columns["ms-ssim-rgb"] = similarities
    columns["bpp"] = [point.bpp for point in points]
    columns["encoding_time"] = [round(point.encode_ms / 1e3, 6) for point in points]
    columns["decoding_time"] = [round(point.decode_ms / 1e3, 6) for point in points]
    described = f"dcu {__version__}, whole files, {dataset}, {points[0].count} images; times are medians"
    content = {"name": own_name(points[0]), "description": described, "results": columns}
    return (json.dumps(content, indent=2) + "\n").encode()
