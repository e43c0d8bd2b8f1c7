"""Lists the packages: each top-level folder is installed below `vaefit`. All other metadata is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = ("kernels", "cache", "vae", "cli", "benchmarks")

setup(
    packages=[
        "vaefit",
        *(
            f"vaefit.{name}"
            for folder in FOLDERS
            for name in (folder, *(f"{folder}.{sub}" for sub in find_packages(folder)))
        ),
    ],
    package_dir={f"vaefit.{folder}": folder for folder in FOLDERS},
)
