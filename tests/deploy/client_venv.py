"""The Python client from the tree, in a venv of the test's own."""
import shutil
import subprocess
import sys

from processes import ROOT, TMP, check, run


def checkout():
    """A copy of what the package is built from, so that nothing is built in the tree."""
    folder = TMP / "checkout"
    shutil.copytree(ROOT / "client/python", folder / "client/python", ignore=shutil.ignore_patterns("build", "dist", "*.egg-info"))
    shutil.copytree(ROOT / "proto", folder / "proto")
    return folder


def python_with_client():
    """The Python of a venv that has it; None where no package registry answers."""
    run([sys.executable, "-m", "venv", TMP / "client-venv"])
    python = TMP / "client-venv/bin/python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    if subprocess.run([*pip, "setuptools"], capture_output=True).returncode != 0:
        return None
    done = subprocess.run([*pip, str(checkout() / "client/python")], capture_output=True, text=True)
    check(done.returncode == 0, f"pip installs the Python client {done.stderr[-1500:]}")
    return python
