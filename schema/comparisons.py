"""The rule that fields of one name can be merged, with a bound: its work is quadratic in them."""

from __future__ import annotations

from typing import Any

from graphql import OverlappingFieldsCanBeMergedRule, SelectionSetNode, ValidationContext
from graphql.validation.validate import ValidationAbortedError

MAX_COMPARISONS = 50_000
"""Steps of graphql-core's rule, two for each pair of fields with one name: they take some 50 ms."""


class TooManyComparisonsError(Exception):
    """A document has so many fields of one name beside each other that their comparison takes long."""

    def __init__(self, count: int, maximum: int) -> None:
        super().__init__()
        self.count = count
        self.maximum = maximum


class LimitedOverlappingFieldsRule(OverlappingFieldsCanBeMergedRule):
    """graphql-core's rule. Raises `TooManyComparisonsError`."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.rule_context.remaining_complexity_budget = MAX_COMPARISONS

    def enter_selection_set(self, selection_set: SelectionSetNode, _key: Any, parent: Any, *_args: Any) -> None:
        try:
            super().enter_selection_set(selection_set, _key, parent)
        except ValidationAbortedError as error:
            left = self.rule_context.remaining_complexity_budget
            if left >= 0:  # there are too many errors
                raise
            raise TooManyComparisonsError(MAX_COMPARISONS - left, MAX_COMPARISONS) from error
