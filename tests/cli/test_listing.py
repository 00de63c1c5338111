"""Tables of what there is to choose from."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_meta import algorithms, backbones
from lightning_meta.cli import main
from lightning_meta.cli.listing import LISTS, first_sentence, paper
from tests.cli.helpers import refused

CONFIGS = Path(__file__).parents[2] / "configs"


def rows(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What is printed behind each name."""
    assert main(["list", name]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {line[0]: line[1] for line in lines}


def test_every_method_has_its_paper_and_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    listed = rows("methods", capsys)
    assert set(listed) == set(algorithms.__all__)
    for name, text in listed.items():
        assert re.match(r"\w+ et al. 20\d\d, arXiv \d{4}\.\d{5} +[A-Z]\w+ \S+ ", text), name
    assert listed["Reptile"].startswith("Nichol et al. 2018, arXiv 1803.02999 ")


def test_every_backbone_takes_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    exported = {name: inspect.signature(getattr(backbones, name)).parameters for name in backbones.__all__}
    assert set(rows("backbones", capsys)) == {name for name, parameters in exported.items() if "outputs" in parameters}


def test_data_modules_are_listed_without_their_bases(capsys: pytest.CaptureFixture[str]) -> None:
    listed = set(rows("data", capsys))
    assert {"OmniglotEpisodes", "ArrayEpisodes", "SinusoidEpisodes"} < listed
    assert not {"EpisodeDataModule", "ImageEpisodes", "ClassImages"} & listed


def test_every_configuration_has_its_source_and_figure(capsys: pytest.CaptureFixture[str]) -> None:
    listed = rows("configs", capsys)
    assert set(listed) == {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")}
    figure = listed["omniglot/finn_5w1s_maml"]
    assert re.match(r"MAML +Finn, Abbeel and Levine \(2017\), arXiv 1703.03400 +98.7 ± 0.4 transductive$", figure)
    assert listed["omniglot/finn_5w1s_anil"].endswith("none: no figure for 5 ways")
    assert listed["sweeps/figure3"].startswith("sweep ")


def test_without_an_argument_it_says_what_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", printed, re.MULTILINE) for name in LISTS)


@pytest.mark.parametrize(
    ("args", "said"), [(["method"], "did you mean methods?"), (["data", "configs"], "one of methods, backbones,")]
)
def test_another_list_is_refused(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(["list", *args], capsys)


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ('MAML: Finn, Abbeel, Levine, "Fast", arXiv 1703.03400.', "Finn et al. 2017, arXiv 1703.03400"),
        ('A rule: Andrychowicz et al., "Learning".\n\narXiv 1606.04474.', "Andrychowicz et al. 2016, arXiv 1606.04474"),
        ("One of our own.", ""),
    ],
)
def test_papers_are_read_from_docstrings(docstring: str, expected: str) -> None:
    assert paper(docstring) == expected


def test_the_first_sentence_does_not_end_within_a_number() -> None:
    assert first_sentence("Tasks of 0.5 in\n    `A`. More.\n\nRest.") == "Tasks of 0.5 in A"


def test_a_reader_that_leaves_is_no_error() -> None:
    """As in ``lightning-meta list configs | head -1``."""
    code = "import sys; from lightning_meta.cli import main; sys.exit(main(['list', 'configs']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, printed = process.communicate()
    assert process.returncode == 141
    assert printed == b""
