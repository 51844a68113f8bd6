"""What the documentation site needs beside Sphinx."""
