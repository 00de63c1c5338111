"""Shipped configurations are found from a source checkout and from an installed wheel."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from lightning_meta.cli import configurations, main
from lightning_meta.cli.configurations import find_configuration, shipped_configurations
from lightning_meta.errors import MetaLearningError
from tests.cli.helpers import refused

FOLDER = Path(__file__).parents[2] / "configs"
NAME = "arrays/maml_5w1s"


def test_every_file_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = shipped_configurations()
    assert shipped["omniglot/finn_5w1s_maml"].read_text() == (FOLDER / "omniglot" / "finn_5w1s_maml.yaml").read_text()
    assert shipped["quickstart"].is_file()
    assert len(shipped) == len(list(FOLDER.rglob("*.yaml")))
    assert list(shipped) == sorted(shipped)


def test_a_wheel_holds_them_inside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "lightning_meta"
    shutil.copytree(FOLDER / "omniglot", package / "configs" / "omniglot")
    monkeypatch.setattr(configurations, "PACKAGE", package)
    shipped = shipped_configurations()
    assert shipped["omniglot/finn_5w1s_maml"] == package / "configs" / "omniglot" / "finn_5w1s_maml.yaml"
    assert all(name.startswith("omniglot/") for name in shipped)


@pytest.mark.parametrize("form", ["--config={}", "--config {}", "-c {}", "-c={}"])
@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "configs/quickstart.yaml"])
def test_a_shipped_configuration_is_found_from_anywhere(
    form: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *form.format(name).split(), "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["experiment"] == "quickstart"


def test_a_file_of_that_name_wins_and_later_ones_override(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "finn_5w1s_maml.yaml").write_text("experiment: mine")
    (tmp_path / "short.yaml").write_text("trainer: {max_steps: 7}")
    assert find_configuration("omniglot/finn_5w1s_maml") == Path("omniglot/finn_5w1s_maml.yaml")
    files = ["-c", "quickstart", "-c", "short", "--config=omniglot/finn_5w1s_maml.yaml"]
    assert main(["fit", *files, "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert (settings["experiment"], settings["trainer"]["max_steps"]) == ("mine", 7)
    assert settings["model"]["class_path"] == "lightning_meta.MAML"


def test_a_near_miss_suggests() -> None:
    with pytest.raises(MetaLearningError, match="did you mean omniglot/finn_5w1s_maml or "):
        find_configuration("omniglot/fin_5w1s_maml.yaml")
    with pytest.raises(MetaLearningError, match="lightning-meta list configs"):
        find_configuration("zzz")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a: [", "is not YAML: .* in line 1"), (b"\xff\xfe\xfa", "cannot be read"), (b"- a", "holds no settings")],
)
def test_other_files_are_refused_by_name(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert re.search(f"mine.yaml {said}", refused(["fit", "-c", str(path)], capsys))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data.ways", "3", "--experiment", "own", "-c", NAME],
        ["--data.ways=3", "--config", NAME, "--experiment=own"],
        ["--experiment=own", f"--config={NAME}", "--data.ways", "3"],
        ["--experiment=own", "--data.ways=3", f"-c{NAME}"],
        ["-c", NAME, "--data.ways=3", "--experiment=own", "-c", '{"experiment": "other", "data": {"ways": 4}}'],
    ],
)
def test_a_setting_overrides_configurations_wherever_it_stands(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *arguments, "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["data"]["init_args"]["ways"] == 3 and settings["experiment"] == "own"
    assert settings["trainer"]["max_steps"] == 3000  # of the configuration


def test_a_configuration_option_without_its_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data.ways", "3", "-c"]) == 2
    assert "expected one argument" in capsys.readouterr().err
