"""Tools of the documentation site beside Sphinx."""
