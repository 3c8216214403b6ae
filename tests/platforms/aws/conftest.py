"""An account of the drill's for whole launches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from whole import Account

from runctl.drill.cloud import Cloud


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with Cloud() as cloud:
        account = Account(cloud, tmp_path)
        yield account
        account.close()
