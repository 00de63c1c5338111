"""What MkDocs does when it builds the site: the figures of benchmarks/results, outside of docs/, belong to it, too."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the figures as ``benchmarks/NAME.png``."""
    for figure in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"benchmarks/{figure.name}", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Link to them there; the pages link to where they are in the repository."""
    return markdown.replace("](../benchmarks/results/", "](benchmarks/")
