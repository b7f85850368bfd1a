"""After the tests: how far each layer was from its reference."""

import pytest

from tests.golden.reference import LARGEST


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the largest difference of every test that had a reference."""
    if LARGEST:
        terminalreporter.section("largest difference from the reference")
        for test, largest in LARGEST.items():
            terminalreporter.write_line(f"{largest:.1e}  {test}")
