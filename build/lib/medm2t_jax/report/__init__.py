"""Presentation of reports: blocks, pages and plots. No metric is computed here."""
