"""What became of runs that train in processes of their own: a line about each, the failed ones, deaths of workers."""

from collections import Counter

from excite.comparison.execute import Report, attempt, outcome
from excite.comparison.plan import Run

MOST_DEATHS = 10  # of the workers of one run: after these it is the run that kills them


class Tally:
    """Counts runs as they end; `failures` are those that failed, with their reasons."""

    def __init__(self, total: int, report: Report) -> None:
        self.total, self.report = total, report
        self.ended = 0
        self.deaths: Counter[str] = Counter()
        self.failures: list[tuple[Run, str]] = []

    def died(self, run: Run, reason: str = "") -> bool:
        """Count a death of a run's worker; return whether the run is to be tried again."""
        self.deaths[run.name] += 1
        if self.deaths[run.name] < MOST_DEATHS:
            self.report(f"{run.name}: its worker died; it goes on from its last epoch")
            return True
        self.end(run, f"its worker died {MOST_DEATHS} times" + (f" ({reason})" if reason else ""))
        return False

    def end(self, run: Run, failure: str | None) -> None:
        """Count a run that has ended."""
        self.ended += 1
        failure = failure or attempt(outcome, run)
        if failure:
            self.failures.append((run, failure))
        text = f"{run.name} failed: {failure}" if failure else outcome(run)
        self.report(f"{self.ended} of {self.total}: {text}")
