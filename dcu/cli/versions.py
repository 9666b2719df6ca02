"""``dcu --version``: what a report of a defect should state."""

from __future__ import annotations

import platform

from dcu import __version__, store


def versions() -> list[str]:
    """Lines with the versions of dcu, Python, packages and models, and what dcu uses of the CPU."""
    import torch

    from dcu.bench.table import package_version, processor
    from dcu.entropy import instruction_sets

    packages = {"PyTorch": "torch", "ONNX Runtime": "onnxruntime", "NumPy": "numpy", "Pillow": "pillow"}
    found = {"Python": platform.python_version()}
    found |= {name: package_version(package) or "not installed" for name, package in packages.items()}
    features = f"{', '.join(instruction_sets())}; PyTorch: {torch.backends.cpu.get_cpu_capability()}"
    found |= {"CPU": processor(), "CPU features": features}
    models = [("model", f"{model.name} (weights {str(model.card.sha256)[:8]})") for model in store.installed()]
    return [f"dcu {__version__}", *(f"{name:<13} {value}" for name, value in [*found.items(), *models])]
