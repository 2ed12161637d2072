"""The prepared data set: schema, examples, records."""
