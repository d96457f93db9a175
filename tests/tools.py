"""Programs and packages that a few tests need and not every machine has.

A test that needs one has its name as a marker (``@pytest.mark.torch``); conftest.py asks here.
"""

import importlib.util
import os

import pytest

from tests import browser

_IS_THERE = {
    'chromium': browser.is_there,
    'torch': lambda: importlib.util.find_spec('torch') is not None,
}
_GET = {
    'chromium': 'install the packages chromium and chromium-driver',
    'torch': '`make test-torch` runs these tests',
}
NAMES = tuple(_IS_THERE)


def need(tool: str) -> None:
    """Skips the test that is set up where a tool is missing.

    With ``CI_STRICT=1`` the test fails instead if ``CI_INSTALLED`` (names separated by spaces)
    has the tool: what CI installed must be found.
    """
    if _IS_THERE[tool]():
        return
    missing = f'{tool} is not installed: {_GET[tool]}'
    if os.environ.get('CI_STRICT') == '1' and tool in os.environ.get('CI_INSTALLED', '').split():
        pytest.fail(f'{missing} (CI_INSTALLED names it)')
    pytest.skip(missing)
