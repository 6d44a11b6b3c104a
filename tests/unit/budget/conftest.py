"""What every test of the budget guard at work begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.guarded_money import Money


@pytest.fixture
def money(tmp_path: Path) -> Money:
    return Money(tmp_path)
