"""The reward of an episode, component by component (PAPER.md, Phase 2)."""

from turnwise.errors import InputError


def length_penalty(turns: int, threshold: int, max_turns: int) -> float:
    """R_length of sec. 4.3: 0 for fewer than `threshold` turns, then falling linearly to -1 at `max_turns`.

    `turns` is |τ|, the number of actions. Raises InputError when the threshold leaves no room before `max_turns`.

    >>> length_penalty(9, threshold=10, max_turns=40), length_penalty(25, threshold=10, max_turns=40)
    (0.0, -0.5)
    """
    if not 0 <= threshold < max_turns:
        raise InputError(f"the length penalty's threshold ({threshold} turns) must lie below max_turns ({max_turns})")
    if turns <= threshold:
        return 0.0
    return (threshold - turns) / (max_turns - threshold)


def reward_components(resolved: bool, turns: int, threshold: int | None, max_turns: int) -> dict[str, float]:
    """R(τ), 1 for a patch that the hidden tests accept, else 0, and R_length unless `threshold` is None.

    >>> reward_components(resolved=True, turns=25, threshold=10, max_turns=40)
    {'resolved': 1.0, 'length': -0.5}
    """
    components = {"resolved": 1.0 if resolved else 0.0}
    if threshold is not None:
        components["length"] = length_penalty(turns, threshold, max_turns)
    return components
