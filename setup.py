"""The packages, of which one has its folder elsewhere; everything else is in pyproject.toml, which cannot say this."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lightning_meta*"]), "lightning_meta.configs"],
    package_dir={"lightning_meta.configs": "configs"},
)
