"""The command line of the page."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lightning_meta.cli import demo, main
from lightning_meta.inference import pretrained
from tests.cli.helpers import refused


def test_the_page_is_served_until_an_interrupt(tmp_path: Path) -> None:
    """From another folder, in a process of its own, at the port that it prints."""
    name = next(iter(pretrained()))
    command = [sys.executable, "-m", "lightning_meta", "demo", "--no-open", "--port=0", "--ckpt", name]
    environment = os.environ | {"PYTHONPATH": str(Path(demo.__file__).parents[2])}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            address = re.fullmatch(r"Draw at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends\)\n", line)
            assert address, line + process.stderr.read()
            assert "<title>" in httpx.get(address[1], timeout=20).text
            found = httpx.get(f"{address[1]}api/checkpoints", timeout=20).json()
            assert [each["name"] for each in found] == [name]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused(["demo", "--no-open", f"--port={port}"], capsys)
    assert f"cannot listen at 127.0.0.1, port {port}" in error
    assert "--port 0" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port=70000"], "--port is 70000, expected 1 to 65535"),
        (["--port=a"], "invalid int value: 'a'"),
        (["--host=300.1.1.1"], "--host is 300.1.1.1, which is not an address"),
        (["--port=0", "--ckpt", "omniglot_mmal_5w1s"], "omniglot_maml_5w1s"),
        (["--port=0", "--ckpt", "nothing.ckpt"], "nothing.ckpt"),
        (["--port=0", "--ckpt", *2 * ["omniglot_maml_5w1s"]], "two checkpoints omniglot_maml_5w1s"),
        (["--chekpoint", "a"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(["demo", "--no-open", *arguments], capsys)


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("lightning_meta.demo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("lightning_meta.demo.server", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    error = refused(["demo", "--no-open", "--port=0"], capsys)
    assert 'pip install "lightning-meta[demo]"' in error


def test_the_page_is_written_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    name = next(iter(pretrained()))
    assert main(["demo", "--static", str(tmp_path / "page"), "--ckpt", name]) == 0
    assert 'content="local"' in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    listed = json.loads((tmp_path / "page" / "checkpoints" / "index.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in listed] == [name]
    assert (tmp_path / "page" / "checkpoints" / f"{name}.safetensors").stat().st_size > 0
