"""Ships the top-level folder conf/ as the package runctl.conf; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

groups = sorted(folder.name for folder in Path("conf").iterdir() if folder.is_dir() and folder.name != "__pycache__")

setup(
    packages=[
        *find_packages(include=["runctl", "runctl.*"]),
        "runctl.conf",
        *(f"runctl.conf.{group}" for group in groups),
    ],
    package_dir={"runctl.conf": "conf"},
    package_data={"runctl": ["py.typed", "hosts/*.sh"], "runctl.conf": ["**/*.yaml"]},
)
