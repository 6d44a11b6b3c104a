"""Numbers of things as a person says them, for messages of every part.

Doesn't belong here: how the report shows a number, with its gaps and digits (report/wording.py).
"""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """`1 lease`, `2 leases`, `1,204 leases`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def load_in_words(users: int | None, offered_per_s: float | None) -> str:
    """`8 users`, or `2.5/s` where a schedule says when requests are due. A burst's requests at once are its users."""
    if offered_per_s is not None:
        return f"{offered_per_s:g}/s"
    return "a rate" if users is None else counted(users, "user")
