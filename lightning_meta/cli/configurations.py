"""The configurations that the package ships, found from anywhere."""

import difflib
from pathlib import Path
from typing import Any

from lightning_meta.bounded_files import read_yaml
from lightning_meta.errors import MetaLearningError

PACKAGE = Path(__file__).parents[1]


def shipped_configurations() -> dict[str, Path]:
    """Every shipped YAML file by its name, which is its path below ``configs/`` without the suffix.

    A wheel carries the files inside the package. In a source checkout, and so in an editable install, they are beside
    the package.

    Returns:
        Files by name, such as ``omniglot/finn_5w1s_maml``, in alphabetical order. Those below ``sweeps/`` are sweeps.
    """
    folder = PACKAGE / "configs"
    if not folder.is_dir():
        folder = PACKAGE.parent / "configs"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_configuration(name: str) -> Path:
    """The file that a person means: one of their own, or else a shipped one.

    Args:
        name: path of a file, or name of a shipped configuration, each with or without ``.yaml``.

    Raises:
        MetaLearningError: there is no such file and no such configuration; it names those that are spelt alike.
    """
    for path in (Path(name), Path(f"{name}.yaml")):
        if path.is_file():
            return path
    shipped = shipped_configurations()
    bare = name.removesuffix(".yaml").removeprefix("./").removeprefix("configs/")
    if bare in shipped:
        return shipped[bare]
    near = difflib.get_close_matches(bare, shipped, 3)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else "`lightning-meta list configs` shows those that are shipped"
    )
    raise MetaLearningError(f"there is neither a file nor a shipped configuration {name}: {hint}")


def read_configuration(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        MetaLearningError: the file cannot be read, is not YAML (it names the line), or stands for more values than any
            settings need.
    """
    return read_yaml(path)
