"""The examples in the docstrings of the primitives run and print what they show."""

import doctest
import inspect

import pytest
from kernels import scope

from tcomp.schedule.primitives import ALL, Primitive
from tcomp.schedule.schedule import Schedule


@pytest.mark.parametrize("primitive", ALL.values(), ids=lambda p: p.name)
def test_example(primitive: Primitive) -> None:
    text = inspect.getdoc(primitive.apply)
    assert text is not None
    test = doctest.DocTestParser().get_doctest(text, scope(), primitive.name, None, 0)
    assert test.examples and f"sch.{primitive.name}(" in text, "an example that calls the primitive"
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("primitive", ALL.values(), ids=lambda p: p.name)
def test_every_primitive_is_a_method_with_a_docstring(primitive: Primitive) -> None:
    assert inspect.getdoc(getattr(Schedule, primitive.name))
