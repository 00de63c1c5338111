"""Checkpoint files: whole or not there, and refused where a byte has changed."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lightning_meta import checkpoint_file
from lightning_meta.errors import MetaLearningError


def checkpoint(number: int = 0) -> dict[str, Any]:
    weights = torch.full((300,), float(number))
    return {"state_dict": {"weight": weights}, "pytorch-lightning_version": "2.6", "global_step": number}


def test_every_flipped_byte_and_every_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    checkpoint_file.write(checkpoint(3), path)
    content = path.read_bytes()
    assert checkpoint_file.read(path)["global_step"] == torch.load(path, weights_only=True)["global_step"] == 3
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        for damaged in (changed, content[:place]):
            path.write_bytes(damaged)
            with pytest.raises(MetaLearningError, match="cannot be read as a checkpoint: it is (damaged|empty)"):
                checkpoint_file.verify(path)


def test_a_file_without_checksum_loads_unless_its_tensors_have_changed(tmp_path: Path) -> None:
    archive = io.BytesIO()
    torch.save(checkpoint(1), archive)
    content = bytearray(archive.getvalue())
    path = tmp_path / "old.ckpt"
    path.write_bytes(content)
    assert checkpoint_file.read(path)["global_step"] == 1
    content[content.index(checkpoint(1)["state_dict"]["weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(MetaLearningError, match="damaged"):
        checkpoint_file.read(path)


def test_what_is_no_checkpoint_is_refused_without_waiting(tmp_path: Path) -> None:
    for pipe in ("pipe", "pipe.safetensors"):
        os.mkfifo(tmp_path / pipe)
    save_file({"weight": torch.zeros(3)}, tmp_path / "bare.safetensors")
    (tmp_path / "empty").touch()
    torch.save(torch.zeros(3), tmp_path / "tensor")
    torch.save(checkpoint() | {"path": Path("x")}, tmp_path / "object")
    torch.save(checkpoint() | {"global_step": "3"}, tmp_path / "typed")
    said = {
        "pipe": "no regular file", "empty": "it is empty", "tensor": "no run of Lightning", "missing": "no such file",
        "object": "objects whose loading runs code", "typed": "its global_step is a str, expected a int",
        "x.safetensors": "no such file", "pipe.safetensors": "no regular file", ".": "it is a folder",
        "bare.safetensors": "weights without their learner",
    }  # fmt: skip
    for name, message in said.items():
        with pytest.raises(MetaLearningError, match=message) as caught:
            checkpoint_file.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(MetaLearningError, match="no regular file"):
        checkpoint_file.read("/dev/zero")


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint_file.write(checkpoint(1), path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(MetaLearningError, match="last.ckpt cannot be written: File too large; .* is whole"):
            checkpoint_file.write(checkpoint(2), path)
        with pytest.raises(MetaLearningError, match=r"new.ckpt cannot be written: File too large\. "):
            checkpoint_file.write(checkpoint(2), tmp_path / "new.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint_file.read(path)["global_step"] == 1
    assert [*tmp_path.iterdir()] == [path]


WRITE = """
import sys, torch
from pathlib import Path
from lightning_meta import checkpoint_file
number = 0
while True:
    number += 1
    weights = torch.full((300000,), float(number))
    values = {"state_dict": {"weight": weights}, "pytorch-lightning_version": "2.6", "global_step": number}
    checkpoint_file.write(values, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for trial in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITE, str(path)])
        before = path.stat().st_ino if path.exists() else None
        while not path.exists() or path.stat().st_ino == before:
            time.sleep(0.01)
        time.sleep(0.0137 * trial)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = checkpoint_file.read(path)
        assert bool((found["state_dict"]["weight"] == found["global_step"]).all())
