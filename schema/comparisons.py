"""The rule that fields of one name can be merged, with a bound: its work is quadratic in them."""

from __future__ import annotations

from typing import Any

from graphql import OverlappingFieldsCanBeMergedRule, SelectionSetNode, ValidationContext
from graphql.validation.rules.overlapping_fields_can_be_merged import RuleContext
from graphql.validation.validate import ValidationAbortedError

from server.database.slices import give_way

MAX_COMPARISONS = 50_000
"""Steps of graphql-core's rule, two for each pair of fields with one name: they take about a tenth of a second."""


class TooManyComparisonsError(Exception):
    """A document has so many fields of one name beside each other that their comparison takes long."""

    def __init__(self, count: int, maximum: int) -> None:
        super().__init__()
        self.count = count
        self.maximum = maximum


class _Comparing(RuleContext):
    """graphql-core's state of the rule, which lets the event loop go on while it counts down."""

    __slots__ = ("_left",)

    @property
    def remaining_complexity_budget(self) -> int:
        return self._left

    @remaining_complexity_budget.setter
    def remaining_complexity_budget(self, left: int) -> None:
        self._left = left
        give_way()


class LimitedOverlappingFieldsRule(OverlappingFieldsCanBeMergedRule):
    """graphql-core's rule. Raises `TooManyComparisonsError`."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.rule_context = _Comparing()
        self.rule_context.remaining_complexity_budget = MAX_COMPARISONS

    def enter_selection_set(self, selection_set: SelectionSetNode, _key: Any, parent: Any, *_args: Any) -> None:
        try:
            super().enter_selection_set(selection_set, _key, parent)
        except ValidationAbortedError as error:
            left = self.rule_context.remaining_complexity_budget
            if left >= 0:  # there are too many errors
                raise
            raise TooManyComparisonsError(MAX_COMPARISONS - left, MAX_COMPARISONS) from error
