"""What the machine is, and how fast its products and copies are.

python benchmarks/gpu/machine.py DEVICE OUTPUT.json
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "torchvision", "pytorch_lightning", "torchmetrics", "jsonargparse", "numpy", "jax")


def best_seconds(step: Callable[[], object], device: torch.device) -> float:
    """The fastest of five runs after one that warms up."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def product_rate(device: torch.device, tf32: bool) -> float:
    """TFLOP/s of a square product of float32 matrices."""
    size = 8192 if device.type == "cuda" else 512
    matrix = torch.randn(size, size, device=device)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    return 2 * size**3 / best_seconds(lambda: matrix @ matrix, device) / 1e12


def copy_rate(device: torch.device) -> float:
    """GB/s that a copy reads and writes."""
    source = torch.empty(2**30 if device.type == "cuda" else 2**22, device=device)
    target = torch.empty_like(source)
    return 8 * source.numel() / best_seconds(lambda: target.copy_(source), device) / 1e9


def installed(package: str) -> str | None:
    """Its version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure, print and write."""
    device = torch.device(sys.argv[1])
    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU, 1 thread",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        **{package: installed(package) for package in PACKAGES},
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "float32_tflops": round(product_rate(device, False), 1),
        "tf32_tflops": round(product_rate(device, True), 1) if device.type == "cuda" else None,
        "copy_gb_per_second": round(copy_rate(device)),
    }
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    text = json.dumps(facts, indent=1) + "\n"
    print(text, end="")
    Path(sys.argv[2]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
