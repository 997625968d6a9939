"""Takes the sample runs into a wheel, inside the package; all else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SAMPLES = "sample_runs"


class BuildWithSamples(build_py):
    """Builds the package with the runs that the first page shows."""

    def run(self) -> None:
        """Build, and copy the runs beside what was built; an editable install reads them where they are."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(
                Path(__file__).parent / SAMPLES, Path(self.build_lib) / "lsviz" / SAMPLES, dirs_exist_ok=True
            )


setup(cmdclass={"build_py": BuildWithSamples})
