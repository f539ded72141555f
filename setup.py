"""Copy conf/ into the wheel, as dropattack/conf; everything else about the build is in pyproject.toml.

conf/ stays at the top of the repository. An editable install finds it there, and copies nothing.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConf(build_py):
    """Build the package with its folder of configs."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "dropattack", "conf")
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree("conf", target)


setup(cmdclass={"build_py": WithConf})
