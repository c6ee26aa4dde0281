"""The public names: complete, lazy, and never shadowed by a module of the same name."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import surgeon


def test_every_public_name_is_the_thing_and_not_a_module():
    for module in pkgutil.walk_packages(surgeon.__path__, "surgeon."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in surgeon.__all__:
        assert not isinstance(getattr(surgeon, name), ModuleType), name


def test_importing_the_package_loads_nothing():
    code = "import sys, surgeon; print(sorted(n for n in sys.modules if n.startswith('surgeon')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['surgeon', 'surgeon.version']\n"
