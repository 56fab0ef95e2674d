"""Command `python -m tools.reference`."""

from . import write_pages

write_pages()
