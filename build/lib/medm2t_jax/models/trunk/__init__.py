"""The ensemble trunk, and the columns of summary statistics that it reads."""
