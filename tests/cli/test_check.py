"""The subcommand that looks for leaks in the data of a configuration."""

import re
from pathlib import Path

import pytest

from lightning_meta.cli import main
from tests.cli.helpers import refused

SMALL = ["--data.train_classes=20", "--data.validation_classes=10", "--data.test_classes=10", "--data.test_tasks=40"]
LEAK = '''"""Data whose queries are the support set."""

from lightning_meta import GlyphEpisodes


class Repeating(GlyphEpisodes):
    """Scores on what it learns from."""

    def draw(self, split, numbers):
        episode = super().draw(split, numbers)
        return episode._replace(query_x=episode.support_x)
'''


def test_data_without_a_leak_are_called_so_with_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--config", "quickstart", "--tasks=30", "--seed_everything=3", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "quickstart: GlyphEpisodes, seed 3"
    assert lines[2].split() == ["looked", "for", "compared", "found"]
    rows = [re.split(r"  +", line) for line in lines[3:-2]]
    assert rows[0] == ["classes in two splits, by name", "20 train, 10 validation, 10 test classes", "0"]
    assert rows[1] == ["pictures in two splits", "400 train, 200 validation, 200 test pictures", "0"]
    assert rows[-1] == ["tasks on two ranks or in two splits", "96 tasks, 2 ranks", "0"]
    assert lines[-1] == "no leak found"
    assert not list(tmp_path.iterdir())


def test_a_leak_is_named_and_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    tmp_path.joinpath("repeating.py").write_text(LEAK)
    assert main(["check", "-c", "quickstart", "--data", "repeating.Repeating", "--tasks=10", *SMALL]) == 1
    printed = capsys.readouterr().out
    assert "tasks with a query in the support set: train task 0, train task 2, train task 4" in printed
    assert printed.endswith("\nthe data leak: tasks with a query in the support set\n")


def test_the_configuration_of_a_run_is_taken_whatever_checkpoint_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "-c", "quickstart", *SMALL, "--ckpt_path", "best", "--print_config"]) == 0
    tmp_path.joinpath("config.yaml").write_text(capsys.readouterr().out)
    assert main(["check", "-c", "config.yaml", "--tasks=10"]) == 0
    assert capsys.readouterr().out.endswith("no leak found\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-c", "quickstart", "--tasks=0"], "tasks is 0, expected at least 1 of every split"),
        (["-c", "omniglot/finn_5w1s_maml", "--data.root=nowhere"], "nowhere/omniglot-py/images_background does not ex"),
        (["-c", "sweeps/figure3"], "is a sweep"),
        (["-c", "quickstrat"], "did you mean quickstart"),
    ],
)
def test_mistakes_are_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(["check", *arguments], capsys)


@pytest.mark.slow
def test_pictures_that_cifar_fs_has_in_two_splits_are_found(
    cifarfs_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CIFAR-100 holds 26 pictures twice, 15 of them under classes that the published lists put into two splits."""
    assert main(["check", "-c", "cifarfs/maml_5w1s", f"--data.root={cifarfs_root}", "--tasks=10"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^pictures in two splits .* 15$", printed, re.MULTILINE)
    assert re.search(r"^equal pictures in one split .* 11 that the data set itself repeats$", printed, re.MULTILINE)
