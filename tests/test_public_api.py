from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import cosma
import cosma.validator  # a room must not hide a public name


def test_every_public_name_exists_and_is_documented() -> None:
    for name in cosma.__all__:
        value = getattr(cosma, name)
        assert value.__doc__ or name == "Instruction", name


@pytest.mark.parametrize("package", ["cosma", "cosma.caching", "cosma.export", "cosma.placement"])
def test_only_public_names_are_handed_on(package: str) -> None:
    module = import_module(package)
    names = vars(module)["__all__"]
    assert sorted(vars(module)["__getattr__"].homes) == sorted(names)
    assert package != "cosma" or set(dir(module)) == {*names, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(cosma, "no_such_name")


def test_importing_costs_nothing_heavy() -> None:
    heavy = ("numpy", "onnx", "ortools", "numba", "scipy", "networkx", "rich", "matplotlib", "pulp")
    code = (
        "import sys, cosma, cosma.cli\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
