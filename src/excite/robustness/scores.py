"""Errors to scores: mean corruption error, with its normalisation named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from excite.errors import UsageError
from excite.robustness.tables import ALEXNET, FAMILIES, SEVERITIES

Errors = Mapping[str, Mapping[int, float]]  # family -> severity -> top-1 error, share


@dataclass
class Baseline:
    """What errors are divided by: mean error by family over the same severities; clean: on clean images, if known."""

    name: str
    errors: Mapping[str, float]
    clean: float | None = None


@dataclass
class Scores:
    """A network's result. Errors are shares of 1.

    mean_error: the mean over severities, then families (un-normalised mCE); mce: the mean over families of the error
    divided by the baseline's, or None without one; relative_mce: the same of the growth over the clean error.
    """

    clean_error: float
    by_family: dict[str, float]
    mean_error: float
    normalisation: str
    mce: float | None = None
    relative_mce: float | None = None
    errors: dict[str, dict[int, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return dict(vars(self))


def mean_by_family(errors: Errors) -> dict[str, float]:
    """Return the mean over severities of each family."""
    return {family: sum(by_severity.values()) / len(by_severity) for family, by_severity in errors.items()}


def alexnet(families: Sequence[str], severities: Sequence[int], num_classes: int) -> Baseline:
    """Return AlexNet's published errors. Raises UsageError where they do not apply."""
    if num_classes != 1000:
        raise UsageError(
            f"baseline alexnet holds ImageNet-C errors (1000 classes); this network has {num_classes}: "
            "give a checkpoint as --baseline, or none for the un-normalised error"
        )
    if tuple(sorted(severities)) != SEVERITIES:
        raise UsageError("baseline alexnet is published as means over all five severities; leave out --severities")
    return Baseline("AlexNet, published (Hendrycks and Dietterich 2019)", {f: ALEXNET[f] for f in families})


def score(clean_error: float, errors: Errors, baseline: Baseline | None = None) -> Scores:
    """Return the scores; with a baseline also its mCE (Hendrycks and Dietterich 2019, section 4.1).

    Raises UsageError where the baseline lacks a family or made no error in one.
    """
    means = mean_by_family(errors)
    part = "" if set(means) == set(FAMILIES) else f", {len(means)} of 15 families"
    result = Scores(clean_error, means, sum(means.values()) / len(means), f"un-normalised{part}")
    result.errors = {family: dict(by_severity) for family, by_severity in errors.items()}
    if baseline is None:
        return result
    for family in means:
        if not baseline.errors.get(family):
            raise UsageError(f"baseline {baseline.name!r} has no error in {family!r}, so nothing can be divided by it")
    result.normalisation = f"divided by {baseline.name}{part}"
    result.mce = sum(means[f] / baseline.errors[f] for f in means) / len(means)
    if baseline.clean is not None:
        growth = {f: baseline.errors[f] - baseline.clean for f in means}
        # Where the baseline does not suffer, a share of its suffering means nothing.
        if all(g > 0 for g in growth.values()):
            result.relative_mce = sum((means[f] - clean_error) / growth[f] for f in means) / len(means)
    return result
