"""What is asked of a network: one study a file.

Each module has functions of a linen module, its variables and plain arrays, for notebooks, and at
its end `measure` (networks to a table), `plot` (its figure) and `summarize` (its sentences).
`study.run` takes one from its name to its folder.
"""

import pkgutil

__all__ = [module.name for module in pkgutil.iter_modules(__path__)]
