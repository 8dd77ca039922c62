from . import editors, generators, heads, losses  # noqa: F401
