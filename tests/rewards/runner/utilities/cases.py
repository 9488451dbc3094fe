import unittest


class CalcCase(unittest.TestCase):
    pass
