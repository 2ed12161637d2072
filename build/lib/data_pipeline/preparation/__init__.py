"""From staged tables to a prepared data set."""
