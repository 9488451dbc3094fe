"""Small bugs for real code: found on the syntax tree, spliced into the text, so that formatting and comments stay."""

from turnwise.tasks.mutate.enumerate import KINDS, enumerate_mutants, outermost_function
from turnwise.tasks.mutate.mutant import Mutant

__all__ = ["KINDS", "Mutant", "enumerate_mutants", "outermost_function"]
