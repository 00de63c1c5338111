"""Help that fits on a screen, and that shows what a class is about."""

import pytest

from lightning_meta import algorithms, data
from lightning_meta.cli import main
from lightning_meta.cli.choices import CHOICES, known_classes
from lightning_meta.cli.help import DESCRIPTIONS


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_subcommand_names_all_its_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    printed = capsys.readouterr().out
    settings = ("--config", "--print_config", "--seed_everything", "--experiment", "--ensemble", "--ckpt_path")
    for setting in (*settings, "--model.help CLASS", "--data.help CLASS", " max_steps,", " save_top_k,"):
        assert setting in printed
    assert "default: 0" in printed and "default: experiment" in printed
    assert max(map(len, printed.splitlines())) <= 120


@pytest.mark.parametrize("algorithm", sorted(algorithms.__all__))
def test_a_method_shows_its_docstring_and_its_settings(algorithm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", f"--model.help={algorithm}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"lightning_meta.{algorithm}\n\n")
    assert printed.splitlines()[2] == getattr(algorithms, algorithm).__doc__.splitlines()[0]
    for text in ("settings: --model.backbone", "one of Conv4, MLP,", "--SETTING.help CLASS"):
        assert text in " ".join(printed.split())
    assert "known subclasses" not in printed and "torch.nn.modules" not in printed
    assert len(printed.splitlines()) < 150


def test_a_formula_is_shown_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.help", "Reptile"]) == 0
    assert "For tasks i with adapted weights W_i:  phi <- phi + eps (mean_i W_i - phi)." in capsys.readouterr().out


def test_other_classes_show_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.help", "MAML", "--model.backbone.help", "Conv4"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("lightning_meta.Conv4\n")
    assert "backbone.filters" in printed
    assert main(["fit", "--data.help", "OmniglotEpisodes"]) == 0
    assert "--data.ways" in capsys.readouterr().out


def test_known_classes_are_those_of_the_package() -> None:
    assert set(known_classes("model")) == set(algorithms.__all__)
    assert "OmniglotEpisodes" in known_classes("data") and set(known_classes("data")) < set(data.__all__)
    assert known_classes("model.inner.optimizer") == ["Adam", "LSTMOptimizer", "LayerRates", "MetaSGD", "SGD"]
    assert {"Adam", "SGD"} < set(known_classes("model.optimizer"))
    assert "PolynomialLR" in known_classes("model.lr_scheduler")
    assert known_classes("model.loss") == []
    assert all(names() for names in CHOICES.values())
