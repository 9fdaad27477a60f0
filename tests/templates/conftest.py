from __future__ import annotations

import pytest

from katsuo.templates.sandbox.watch import Watch


@pytest.fixture
def watch():
    with Watch(0.5) as watch:
        yield watch
