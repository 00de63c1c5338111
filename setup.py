"""Names the packages: pyproject.toml can search for them or map `configs/` to one of them, but not both."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lightning_meta*"]), "lightning_meta.configs"],
    package_dir={"lightning_meta.configs": "configs"},
)
