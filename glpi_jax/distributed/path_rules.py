"""Rules over parameter paths: (regular expression over the whole path, value), the first holds."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from glpi_jax.core.errors import GlpiError

V = TypeVar("V")


def apply_rules(paths: Sequence[str], rules: Sequence[tuple[str, V]], where: str) -> dict[str, V]:
    """Give each path the value of the first rule that matches all of it.

    Args:
        paths: such as `vgfe/blocks_0/attn/qkv/kernel`.
        rules: (regular expression, value).
        where: the key of the config that holds them, for messages.

    Raises:
        GlpiError: a rule that is no such pair, a path that no rule covers, or a rule that covers no
            path.
    """
    for rule in rules:
        _check_rule(rule, where)
    values: dict[str, V] = {}
    used = set()
    uncovered = []
    for path in paths:
        for pattern, value in rules:
            if re.fullmatch(pattern, path):
                values[path] = value
                used.add(pattern)
                break
        else:
            uncovered.append(path)
    if uncovered:
        raise GlpiError(
            f"{where} cover no parameter named {', '.join(uncovered)}: add a rule for '.*'"
        )
    unused = [pattern for pattern, _ in rules if pattern not in used]
    if unused:
        raise GlpiError(f"{where}: no parameter matches {', '.join(map(repr, unused))}")
    return values


def _check_rule(rule: Any, where: str) -> None:
    """A rule comes from the command line or a config file, where it may be anything."""
    if not (isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)):
        raise GlpiError(f"{where}: {rule!r} is not (regular expression, value)")
    try:
        re.compile(rule[0])
    except re.error as error:
        raise GlpiError(f"{where}: {rule[0]!r} is no regular expression ({error})") from error
