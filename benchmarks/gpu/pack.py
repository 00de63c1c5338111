"""Packs into a folder what a GPU machine without network lacks: wheels, Omniglot's drawings, and their caches.

    python benchmarks/gpu/pack.py [DATA] [--output .gpu] [--without-wheels]

DATA holds ``omniglot-py``; a rehearsal does without it, on drawn characters. The machine has Python 3.12 with torch,
torchvision, pytorch-lightning, torchmetrics, tensorboard and matplotlib.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from lightning_meta.data import OmniglotEpisodes

WHEELS = ["jsonargparse", "typeshed-client", "docstring-parser", "gymnasium", "farama-notifications"]
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
LARGEST = 50 * 2**20  # bytes


def download_wheels(folder: Path) -> None:
    """The requirements that the machine lacks, as wheels for it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.12", "--implementation", "cp", "--constraint", "constraints.txt"]
    command += [argument for platform in PLATFORMS for argument in ("--platform", platform)]
    subprocess.run([*command, "--dest", str(folder), *WHEELS], check=True)


def pack_images(data: Path, archive: Path) -> None:
    """The drawings, and them decoded in the two ways that the job's configurations ask for."""
    folders = ["omniglot-py/images_background", "omniglot-py/images_evaluation"]
    root = str(data)
    for episodes in (OmniglotEpisodes(root=root, split="finn"), OmniglotEpisodes(root=root, resample="nearest", ink=0)):
        episodes.load()
        folders.append(f"lightning_meta_cache/{episodes.rendering.file_name}")
    # A cache fits only beside drawings with the times of those it was made of, to the nanosecond: format posix.
    subprocess.run(["tar", "--format=posix", "-czf", str(archive), "-C", str(data), *folders], check=True)


def main() -> int:
    """Pack, and print how large it became."""
    parser = argparse.ArgumentParser(description="Pack what a GPU machine without network lacks.")
    parser.add_argument("data", type=Path, nargs="?", help="folder that holds omniglot-py")
    parser.add_argument("--output", type=Path, default=Path(".gpu"), help="default: %(default)s")
    parser.add_argument("--without-wheels", action="store_true", help="where the machine has all requirements")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    if not options.without_wheels:
        download_wheels(options.output / "wheels")
    if options.data:
        pack_images(options.data, options.output / "images.tar.gz")
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {size / 2**20:.1f} MiB")
    return int(size > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
