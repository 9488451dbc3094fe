"""How tasks are made from a package."""

from dataclasses import dataclass

from turnwise.tasks.mutate import KINDS
from turnwise.tasks.split import HeldOutBy


@dataclass(frozen=True)
class MakeOptions:
    """How tasks are made from one package.

    `limit` bugs at most (0: all), `per_function` in one function of at most `max_function_lines` lines; `tries` mutants
    are tried in a function at most. Every run of tests is repeated `repeats` times and must agree. A bug whose tests'
    files take over `max_test_s` together is left out, and so is one that fails over `max_failing` tests. `named_only`
    keeps a bug only if its issue names the function that holds it.

    About the share `held_out` of the bugs is kept out of training, a whole function, file or package (`held_out_by`) at
    a time; which ones follows from `split_seed`. `seed` says which bugs are tried first.
    """

    limit: int = 0
    per_function: int = 6
    tries: int = 24
    max_function_lines: int = 60
    max_failing: int = 25
    max_test_s: float = 10.0
    repeats: int = 3
    kinds: tuple[str, ...] = KINDS
    files: tuple[str, ...] = ()
    held_out: float = 0.25
    held_out_by: HeldOutBy = "function"
    split_seed: int = 0
    named_only: bool = False
    concurrency: int = 1
    seed: int = 0
