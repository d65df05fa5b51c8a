"""Hand the build of the compiled parts to CMake; metadata stand in pyproject.toml, sources and flags in CMakeLists.txt.

Only a missing C++ compiler or missing Python headers let the install go on without compiled parts.  The reason
is then written into the package (``_build_info.json``).  ``FASTCONV_REQUIRE_CPP=1`` forbids that.
"""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
VERSION: str = runpy.run_path(str(ROOT / "src/fastconv/_version.py"))["__version__"]


def missing_tool() -> tuple[str, str] | None:
    """Say what this machine lacks to compile anything at all, and the command that mends it."""
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    reinstall = "pip install --force-reinstall --no-cache-dir fastconv"
    if not any(shutil.which(name) for name in compilers):
        return f"no C++ compiler found (tried {', '.join(compilers)})", f"apt install g++ && {reinstall}"
    include = {sysconfig.get_path(kind) for kind in ("include", "platinclude")}
    if not any(Path(folder, "Python.h").is_file() for folder in include):
        return f"Python.h not found in {', '.join(sorted(include))}", f"apt install python3-dev && {reinstall}"
    return None


class CMakeBuild(build_ext):
    """Configure, build and install into the package, whichever of the source or the build tree that is."""

    def run(self) -> None:
        package = ROOT / "src/fastconv" if self.inplace else Path(self.build_lib).resolve() / "fastconv"
        lack = missing_tool()
        if lack is None:
            self.build(package)
            return
        reason, remedy = lack
        if os.environ.get("FASTCONV_REQUIRE_CPP", "0") not in ("", "0"):
            raise SystemExit(f"fastconv: {reason}, and FASTCONV_REQUIRE_CPP is set; to mend it: {remedy}")
        print(f"fastconv: {reason}; going on without compiled parts. To mend it: {remedy}", file=sys.stderr)
        info = {"compiled": False, "reason": reason, "remedy": remedy}
        (package / "_build_info.json").write_text(json.dumps(info, indent=2) + "\n")

    def build(self, package: Path) -> None:
        import pybind11

        build = Path(self.build_temp).resolve() / f"cmake-{sysconfig.get_config_var('SOABI')}"
        configure = [
            f"-DFASTCONV_VERSION={VERSION}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            "-DFASTCONV_BUILD_PYTHON=ON",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        # pip builds in a new environment each time: CMake's cache still names the ninja of the one before
        ninja = shutil.which("ninja")
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
        jobs = str(self.parallel or os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or os.cpu_count() or 1)
        subprocess.check_call(["cmake", "-S", str(ROOT), "-B", str(build), *generator, *configure])
        subprocess.check_call(["cmake", "--build", str(build), "--parallel", jobs])
        subprocess.check_call(["cmake", "--install", str(build), "--prefix", str(package), "--component", "python"])

    def get_outputs(self) -> list[str]:
        package = Path(self.build_lib) / "fastconv"
        return [str(path) for path in self.built(package) if path.exists()]

    @staticmethod
    def built(package: Path) -> list[Path]:
        return [package / "_build_info.json", *package.rglob("*.so"), *package.rglob("*.pyd")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


# The one extension named here only marks the wheel as made for one platform: CMake knows what is built.
setup(
    ext_modules=[Extension("fastconv.backends._cpp._core", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
