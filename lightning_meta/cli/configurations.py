"""The configurations that the package ships, found from anywhere."""

from pathlib import Path

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
