"""What all sources share: reading raw tables, their cells and units."""
