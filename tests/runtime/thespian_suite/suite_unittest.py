"""The little of unittest that Thespian's tests use, for a worker, which has no unittest: goes into the bundle."""

from __future__ import annotations


class TestCase:
    """One test method, with its set-up."""

    def __init__(self, method: str) -> None:
        self.method = method

    def setUp(self) -> None:
        pass

    def tearDown(self) -> None:
        pass

    def assertGreaterEqual(self, first: float, second: float) -> None:
        assert first >= second
