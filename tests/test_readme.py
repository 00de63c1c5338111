"""What README.md shows is so: its code and commands run, its table is that of the package, and it is short."""

import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from lightning_meta.cli.listing import list_methods
from tests.docs.pages import ROOT, block, blocks
from tests.helpers import glyphs

README = ROOT.joinpath("README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_its_python_runs(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = block("README.md", "python", "Trainer")
    code = [line for line in script.splitlines() if line]
    assert len(code) <= 10
    for whole, short in {"max_steps=400": "max_steps=2, limit_val_batches=0", "shots=1)": "shots=1, **small)"}.items():
        assert whole in script
        script = script.replace(whole, short)
    small = {"train_classes": 20, "test_classes": 10, "validation_tasks": 0, "test_tasks": 4, "meta_batch_size": 2}
    names: dict[str, object] = {"small": small}
    exec(script, names)
    assert names["learner"].meta_steps == 2
    assert names["learner"].scores.intervals["query_accuracy"].tasks == 4


@pytest.mark.slow
def test_its_classifier_tells_symbols_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drawings = 255 - glyphs().data.images[:60].view(3, 20, 28, 28).numpy()
    for name, drawn in zip(("circle", "square", "star"), drawings, strict=True):
        (tmp_path / "known" / name).mkdir(parents=True)
        Image.fromarray(drawn[0]).save(tmp_path / "known" / name / "1.png")
        (tmp_path / "unknown").mkdir(exist_ok=True)
        Image.fromarray(drawn[1]).save(tmp_path / "unknown" / f"{name}.png")
    exec(block("README.md", "python", "FewShotClassifier"), {})
    assert capsys.readouterr().out.startswith("['circle' 'square' 'star']")


def test_the_make_commands_do_what_it_says() -> None:
    shown = block("README.md", "bash", "git clone")
    targets = re.findall(r"make (\w+)", README)
    assert {"quickstart", "test", "check", "docs"} <= set(targets)
    assert "source .venv/bin/activate" in shown
    runs = {"quickstart": "fit -c", "test": "pytest", "check": 'not slow"', "docs": "mkdocs build"}
    for target, command in runs.items():
        run = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert command in run.stdout


def test_its_table_has_every_method_with_its_paper() -> None:
    table = README.partition("\n## Methods\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| \[(.+?)\]\(https://arxiv.org/abs/([\d.]+)\) \| .+ \|$", table, re.MULTILINE)
    assert {(name, f"{paper}, arXiv {number}") for name, paper, number in rows} == {
        (name, paper) for name, paper, _ in list_methods()
    }


def test_its_citation_names_the_package_as_the_citation_file_does() -> None:
    (entry,) = blocks("README.md", "bibtex")
    title = re.search(r'^title: "(.+)"$', ROOT.joinpath("CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert title
    assert f"{{{title[1]}}}" in entry
