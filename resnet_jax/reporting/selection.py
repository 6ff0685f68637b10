"""Each network at its best: which of the optimiser's settings that were tried is compared."""

import dataclasses
import math
from collections.abc import Sequence

from resnet_jax.reporting import naming
from resnet_jax.reporting.load import FINISHED, Group, Result, with_settings_told

OPTIMISER = ("optimizer.", "schedule.")
"""Sections of the config whose fields are chosen for each network; all others are compared."""

TUNED = "schedule.learning_rate"
"""Where this is the same in all runs of a data set, nothing was tuned: what differs is compared."""

CRITERIA = {"validation_error": "validation error", "train_error": "training error"}
"""By what settings are chosen, the first that all runs have. Never by test error."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """Settings of the optimiser that were tried for one network, and the one that was best.

    Attributes:
      candidates: by setting, such as "learning_rate=0.03", best first.
      errors: mean of the criterion over `seeds` in percent, in that order; infinite where one of
        these runs diverged, NaN where there is no seed to judge by.
      criterion: a value of `CRITERIA`.
      seeds: how many seeds all candidates share.
      waiting: settings of which nothing has finished; they may yet be better.
    """

    candidates: list[Group]
    errors: list[float]
    criterion: str
    seeds: int
    waiting: list[str]

    @property
    def best(self) -> Group:
        return self.candidates[0]


def select_best(groups: Sequence[Group]) -> tuple[list[Group], list[Selection]]:
    """Keeps of each network its best optimiser setting, and says which others it had.

    Candidates are groups that differ in nothing but the optimiser's fields, the learning rate among
    them: runs that differ in, say, their warm-up alone were made to compare warm-ups. The best has
    the least mean error over the seeds that all candidates share: on the validation split if there
    is one, on the training set otherwise. A setting with which one of these seeds diverged comes
    after all with which none did. Without a shared seed the setting with most seeds stands in.

    Returns:
      The best group of each network, with `setting` and `chosen` anew, in the order of their
      showing; and a selection for each, but on data sets where no learning rate was tuned.
    """
    shown: list[Group] = []
    selections: list[Selection] = []
    for dataset in dict.fromkeys(group.dataset for group in groups):
        of_dataset = [group for group in groups if group.dataset == dataset]
        own = [group for group in of_dataset if not group.is_damaged]
        shown += [group for group in of_dataset if group.is_damaged]
        tried = {
            key
            for candidates in _by_network(own)
            for key in naming.differing(group.settings for group in candidates)
        }
        if TUNED not in tried:
            shown += own
            continue
        found = [
            _select([_chosen(group, tried) for group in candidates])
            for candidates in _by_network(with_settings_told(own, without=tried))
        ]
        shown += [selection.best for selection in found]
        selections += found
    return shown, selections


def _by_network(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups that differ in the optimiser's fields alone."""
    networks: dict[str, list[Group]] = {}
    for group in groups:
        stated = {
            key: value
            for key, value in group.settings.items()
            if not key.startswith(OPTIMISER) and value is not None
        }
        networks.setdefault(naming.as_text(stated), []).append(group)
    return list(networks.values())


def _chosen(group: Group, tried: set[str]) -> Group:
    words = naming.describe_settings(group.settings, sorted(tried))
    return dataclasses.replace(group, chosen=words)


def _select(candidates: list[Group]) -> Selection:
    finished = [group for group in candidates if group.having(*FINISHED)]
    waiting = [group.chosen for group in candidates if group not in finished]
    shared = set.intersection(
        *({r.seed_key for r in g.having(*FINISHED)} for g in finished or [candidates[0]])
    )
    judged = [r for g in finished for r in g.completed if r.seed_key in shared]
    field = next(
        (
            name
            for name in CRITERIA
            if judged and not any(math.isnan(result.final(name)) for result in judged)
        ),
        "train_error",
    )  # fmt: skip
    errors = {id(group): _error(group, field, shared) for group in candidates}
    rank = lambda group: (
        math.isnan(errors[id(group)]),
        errors[id(group)],
        -group.count_seeds("completed"),
    )
    order = sorted(candidates, key=rank)
    return Selection(order, [errors[id(g)] for g in order], CRITERIA[field], len(shared), waiting)


def _error(group: Group, field: str, seeds: set[str]) -> float:
    """Mean over `seeds` in percent; infinite if one diverged, NaN without a finished one."""
    finished: list[Result] = [r for r in group.having(*FINISHED) if r.seed_key in seeds]
    if not finished:
        return math.nan
    if any(result.status == "diverged" for result in finished):
        return math.inf
    values = [value for seed, value in group.by_seed(field).items() if seed in seeds]
    return 100 * sum(values) / len(values) if values else math.nan
