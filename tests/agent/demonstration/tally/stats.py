"""Small statistics over lists of numbers."""


def mean(values):
    """The arithmetic mean."""
    return sum(values) / len(values)


def median(values):
    """The middle value; of an even number of values, the mean of the middle two."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return mean(ordered[middle : middle + 2])


def spread(values):
    """The difference between the largest and the smallest value."""
    return max(values) - min(values)
