"""The engine of the data set converters: raw images -> GT, LRs, annotation files, manifest."""
from .engine import prepare
from .recipe import Recipe
from .sources import FolderSource, LMDBSource, Source, ZipSource, open_source

__all__ = ['FolderSource', 'LMDBSource', 'Recipe', 'Source', 'ZipSource', 'open_source', 'prepare']
