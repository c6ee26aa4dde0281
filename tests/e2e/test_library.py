"""Every public name shows how it is used, and what it shows is what happens."""

import doctest
import importlib
import shutil

import pytest
from made_run import made_run

import surgeon

pytestmark = pytest.mark.slow
NAMES = [name for name in surgeon.__all__ if name != "__version__"]


def examples_of(thing, name):
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    return [test for test in found if test.examples]


def complaints(tests, folder, monkeypatch):
    """What doctest says of the examples, each run in `folder` with names of its own."""
    monkeypatch.chdir(folder)
    runner, said = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), []
    for test in tests:
        runner.run(test, out=said.append)
    return "".join(said)


@pytest.fixture
def folder(tmp_path):
    """A folder with the finished run that the examples speak of."""
    shutil.copytree(made_run(), tmp_path / "runs/demo")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_is_true(name, folder, monkeypatch):
    tests = examples_of(getattr(surgeon, name), name)
    assert tests, f"`surgeon.{name}` has no example"
    assert complaints(tests, folder, monkeypatch) == ""


@pytest.mark.parametrize("module", ["surgeon", "surgeon.cost.measure"])
def test_the_examples_of_a_module_are_true(module, tmp_path, monkeypatch):
    thing = importlib.import_module(module)
    tests = examples_of(thing, module)
    if module != "surgeon":
        tests = examples_of(thing.measure_cost, module)
    assert tests and complaints(tests, tmp_path, monkeypatch) == ""


def test_a_wrong_example_is_noticed(tmp_path, monkeypatch):
    def wrong():
        """
        >>> 1 + 1
        3
        """

    assert "Expected:" in complaints(examples_of(wrong, "wrong"), tmp_path, monkeypatch)
