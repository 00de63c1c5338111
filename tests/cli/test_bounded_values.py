"""Values and files that jsonargparse reads itself: what stands for gigabytes, or never ends, is refused in one line."""

import os
from pathlib import Path

import jsonargparse
import pytest
import yaml

from lightning_meta.cli import main
from lightning_meta.cli.bounded_values import bound_values, load
from tests.cli.fuzz import EAGER, GLYPHS, YAML_FILES
from tests.cli.helpers import refused

MAML = ["fit", "--model=MAML", "--model.backbone=Conv4", *GLYPHS, *EAGER]
BOMB = "{a: &a [x, x, x, x, x, x, x, x, x, x], "
BOMB += ", ".join(f"{n}: &{n} [{', '.join([f'*{o}'] * 10)}]" for o, n in zip("abcdefg", "bcdefgh", strict=True)) + "}"
DEEP = "[" * 3000 + "]" * 3000
VALUES = {
    "bomb": (BOMB, "it stands for more than 100,000 values"),
    "deep": (DEEP, "it is nested more than 64 deep"),
    "itself": ("&a [*a]", "*a is part of itself"),
    "settings": ("{class_path: MAML, init_args: &a {inner: *a}}", "*a is part of itself"),
}
FILES = {
    "aliases": "it stands for more than 100,000 values",
    "deep": "it is nested more than 64 deep",
    "itself": "*a is part of itself",
    "large": "at most 1,048,576 are expected",
    "latin": "it is not text in UTF-8",
    "pipe": "it is not a regular file",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("aliases", "deep", "itself"):
        (tmp_path / f"{name}.yaml").write_text(YAML_FILES[name])
    (tmp_path / "large.yaml").write_text("x: 1\n" * 300_000)
    (tmp_path / "latin.yaml").write_bytes("class_path: é".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("key", ["model", "data", "model.inner", "model.loss", "trainer.callbacks", "checkpoint"])
def test_values(key: str, case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = VALUES[case]
    printed = refused([*MAML, f"--{key}={text}"], capsys)
    assert printed.startswith("lightning-meta: error: the value ")
    assert said in printed
    assert len(printed) < 300


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("option", ["--model={}", "--data={}", "--trainer={}", "--model.inner={}"])
def test_files(option: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = refused([*MAML, option.format(f"{folder}/{name}.yaml")], capsys)
    assert f"{name}.yaml cannot be read" in printed
    assert FILES[name] in printed


@pytest.mark.parametrize("case", VALUES)
def test_settings_on_the_command_line(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = VALUES[case]
    assert said in refused([*MAML, "-c", f"{{trainer: {text}}}"], capsys)


@pytest.mark.parametrize("group", ["trainer", "checkpoint"])
@pytest.mark.parametrize("value", ["null", "[3]", "[]"])
def test_a_group_is_settings(group: str, value: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "group.yaml").write_text(f"{group}: {value}\n")
    for command in ("fit", "test"):
        printed = refused([command, *MAML[1:], "-c", "group.yaml"], capsys)
        assert printed.startswith(f"lightning-meta: error: {group} is {value}, expected")


def test_what_is_no_value_of_its_type_is_left_to_be_a_word() -> None:
    """Of which jsonargparse knows by the errors of YAML alone."""
    for text in ("!!bool maybe", "!!int x", "!!timestamp soon"):
        with pytest.raises(yaml.YAMLError):
            load(text)


def test_a_file_is_read_from_where_its_path_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a configuration elsewhere, and one whose mistake is said later, with its place."""
    (folder / "broken.yaml").write_text("a: [")
    bound_values()
    monkeypatch.chdir("/")
    assert jsonargparse.Path("broken.yaml", mode="fr", cwd=str(folder)).read_text() == "a: ["


def test_aliases_within_bounds_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.yaml").write_text(
        "class_path: MAML\ninit_args: {inner: {steps: &steps 3, evaluation_steps: *steps}}"
    )
    assert main([*MAML, "--model=model.yaml", "--model.backbone=Conv4", "--print_config"]) == 0
    assert "evaluation_steps: 3" in capsys.readouterr().out
