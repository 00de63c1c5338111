"""The site builds without a warning, and what it says about files of the repository is so."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT

LINK = re.compile(r"github\.com/lightning-meta/lightning-meta/(?:blob|tree)/main/([^)#\s]+)")
RELATIVE = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")  # MkDocs and its parts
def test_the_site_builds_strictly_and_publishes_no_raw_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("mkdocs.config", reason="the group `docs` is not installed: make setup")
    from mkdocs.commands.build import build

    monkeypatch.chdir(ROOT)
    settings = config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    settings.plugins.on_startup(command="build", dirty=False)
    build(settings)
    kinds = {path.suffix for path in tmp_path.joinpath("site").rglob("*") if path.is_file()}
    assert "MetaLearner" in tmp_path.joinpath("site/api/learner/index.html").read_text(encoding="utf-8")
    assert not kinds & {".py", ".csv", ".tex", ".yaml", ".ckpt", ".lightning-meta-report"}
    assert not list(tmp_path.glob("site/**/results.json"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_the_repository_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [link for link in LINK.findall(text) if not ROOT.joinpath(link).exists()]
    missing += [link for link in RELATIVE.findall(text) if not (page.parent / link).exists()]
    assert not missing


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    navigation = ROOT.joinpath("mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2].partition("\n\n")[0]
    listed = set(re.findall(r": ([\w/]+\.md)", navigation))
    written = {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/*.md")}
    written |= {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/api/*.md")}
    assert listed == written


def test_the_reference_has_every_method_backbone_and_data_set() -> None:
    for package in ("algorithms", "backbones", "data", "inner"):
        imports = ROOT.joinpath(f"lightning_meta/{package}/__init__.py").read_text(encoding="utf-8")
        modules = set(re.findall(r"^from (lightning_meta\.\S+) import", imports, re.MULTILINE))
        documented = set(re.findall(r"^::: (\S+)", ROOT.joinpath(f"docs/api/{package}.md").read_text(), re.MULTILINE))
        assert modules <= documented


def test_the_reading_path_has_the_ten_files_of_its_drawing() -> None:
    page = ROOT.joinpath("docs/episode.md").read_text(encoding="utf-8")
    drawn = re.findall(r'^    \("([\w/]+\.py)", "(\w+)"', ROOT.joinpath("docs/pictures.py").read_text(), re.MULTILINE)
    headings = re.findall(r"^### \d+\. \[`([\w/]+\.py)`\]", page, re.MULTILINE)
    assert [file for file, _ in drawn] == headings
    assert len(headings) == 10
    for file, name in drawn:
        assert re.search(rf"(def|class) {name}\b", ROOT.joinpath("lightning_meta", file).read_text(encoding="utf-8"))
