"""Tables beside the paper's, the ledger of claims and every figure.

A notebook says ``report.beside_paper(runs, table=1)``, and ``report.figures.x(...)`` for a module
that is slow to import.
"""

from stadlib.base import lazy_modules

__getattr__ = lazy_modules(__name__, functions_of="tables")
