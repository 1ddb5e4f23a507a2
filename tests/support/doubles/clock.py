"""A clock that stands still until a test moves it."""


class Clock:
    """Call it for the time, `now`; `sleep` moves it on at once."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
