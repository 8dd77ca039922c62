from . import editors, generators, heads  # noqa: F401
