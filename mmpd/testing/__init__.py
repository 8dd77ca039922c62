from .operator_case import OperatorCase, assert_close

__all__ = ['OperatorCase', 'assert_close']
