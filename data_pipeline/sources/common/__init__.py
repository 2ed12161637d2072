"""Code that sources share: reading raw tables, cells and units."""
