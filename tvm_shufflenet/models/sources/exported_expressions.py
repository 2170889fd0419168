"""Validates the size expressions of a .pt2 with dynamic dimensions, which torch passes to eval.

torch parses expressions with ``sympy.sympify``, and makes a Python function of guards. So each is checked against a
grammar first: nothing in it can name anything but arithmetic, and no number can grow beyond what a computer counts to.
"""

from __future__ import annotations

import ast
import re

LONGEST = 8192  # characters; the guards of a network of fifty dynamic layers take some hundred
DEEPEST = 100
INTEGERS = 2**63
# A tenth of what sympy and torch know: what describes sizes. No power, which can make a number of any length.
FUNCTIONS = {
    "Abs", "Add", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "FloorDiv", "FloorToInt", "GreaterThan",
    "IntTrueDiv", "LessThan", "Max", "Min", "Mod", "ModularIndexing", "Mul", "Ne", "PythonMod", "StrictGreaterThan",
    "StrictLessThan", "ToFloat", "TruncToInt", "Unequality", "Where", "ceiling", "floor",
}  # fmt: skip
LOGIC = {"And", "Not", "Or"}
NUMBERS = {"Float", "Integer", "Rational"}
CONSTANTS = {"false", "true"}
SYMBOL = re.compile(r"[su]\d{1,6}\Z")
LARGEST_UNBACKED = 10_000  # torch counts up to it
ASSUMPTIONS = {"finite", "integer", "negative", "nonnegative", "nonzero", "positive", "real"}
OPERATORS = (
    ast.Add, ast.And, ast.Div, ast.Eq, ast.FloorDiv, ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Mod, ast.Mult, ast.Not,
    ast.NotEq, ast.Or, ast.Sub, ast.UAdd, ast.USub,
)  # fmt: skip
CALLED_IN_GUARDS = FUNCTIONS | LOGIC


class NotArithmetic(ValueError):
    """An expression outside the grammar; the text shows it, shortened and printable."""

    def __init__(self, text: str):
        super().__init__(f"{text[:80]!a} is no arithmetic on sizes")


def check_symbol(name: str) -> None:
    """A symbol as torch names them. Raises NotArithmetic."""
    if not SYMBOL.match(name) or (name.startswith("u") and int(name[1:]) > LARGEST_UNBACKED):
        raise NotArithmetic(name)


def check_expression(text: str) -> None:
    """An expression as sympy writes it: ``Add(Symbol('s0', integer=True), Integer(1))``, or ``s0 + 1`` of older torch.

    Raises NotArithmetic.
    """
    _Grammar(text).check()


def check_guard(text: str) -> None:
    """A condition on the sizes of inputs: ``(L['x'].size()[2] // 2) != 1``. Raises NotArithmetic."""
    _Guards(text).check()


class _Grammar:
    def __init__(self, text: str):
        self.text = text

    def check(self) -> None:
        if len(self.text) > LONGEST or not self.text.isprintable() or "#" in self.text:
            raise NotArithmetic(self.text)
        try:
            tree = ast.parse(self.text.strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise NotArithmetic(self.text) from None
        self._visit(tree.body, 0)

    def _refuse(self) -> None:
        raise NotArithmetic(self.text)

    def _visit(self, node: ast.AST, depth: int) -> None:
        if depth > DEEPEST:
            self._refuse()
        if isinstance(node, ast.Constant):
            self._number(node.value)
        elif isinstance(node, ast.Name):
            self._name(node.id)
        elif isinstance(node, ast.Call):
            self._call(node, depth)
        elif isinstance(node, ast.Subscript):
            self._size(node)
        elif isinstance(node, (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare)):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self._visit(child, depth + 1)
                elif not isinstance(child, OPERATORS):
                    self._refuse()
        else:
            self._refuse()

    def _number(self, value: object) -> None:
        if type(value) not in (int, float, bool) or not abs(value) <= INTEGERS:
            self._refuse()

    def _name(self, name: str) -> None:
        if name not in CONSTANTS:
            check_symbol(name)

    def _call(self, node: ast.Call, depth: int) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "Symbol":
            return self._symbol(node)
        if node.keywords and not (name == "Float" and all(each.arg == "precision" for each in node.keywords)):
            self._refuse()
        if name in NUMBERS:
            return self._literal(node)
        if name not in FUNCTIONS | LOGIC:
            self._refuse()
        for argument in node.args:
            self._visit(argument, depth + 1)
        return None

    def _symbol(self, node: ast.Call) -> None:
        if len(node.args) != 1 or not isinstance(node.args[0], ast.Constant) or type(node.args[0].value) is not str:
            self._refuse()
        check_symbol(node.args[0].value)
        for each in node.keywords:
            is_flag = isinstance(each.value, ast.Constant) and type(each.value.value) is bool
            if each.arg not in ASSUMPTIONS or not is_flag:
                self._refuse()

    def _literal(self, node: ast.Call) -> None:
        """``Integer(-1)``, ``Rational(1, 2)``, ``Float('0.5', precision=53)``."""
        for argument in (*node.args, *(each.value for each in node.keywords)):
            text = ast.unparse(argument).strip("'\"")
            if not re.match(r"-?\d{1,19}(\.\d{0,40})?(e[-+]?\d{1,3})?\Z", text):
                self._refuse()

    def _size(self, node: ast.Subscript) -> None:
        self._refuse()


class _Guards(_Grammar):
    """Sizes are ``L['x'].size()[2]``, perhaps of an input within others: ``L['args'][0].size()[2]``."""

    def _name(self, name: str) -> None:
        self._refuse()

    def _call(self, node: ast.Call, depth: int) -> None:
        if not (isinstance(node.func, ast.Name) and node.func.id in CALLED_IN_GUARDS) or node.keywords:
            self._refuse()
        for argument in node.args:
            self._visit(argument, depth + 1)

    def _size(self, node: ast.Subscript) -> None:
        if not re.match(r"L(\['[^\W\d]\w*'\]|\[\d{1,4}\])+\.(size|stride)\(\)\[\d{1,2}\]\Z", ast.unparse(node)):
            self._refuse()
