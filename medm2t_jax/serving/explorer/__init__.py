"""The patient explorer: a page about one patient (docs/explorer.md)."""
