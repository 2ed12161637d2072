"""The patient explorer: one page of one patient (docs/explorer.md)."""
