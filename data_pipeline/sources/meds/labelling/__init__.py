"""Labels of a MEDS data set: task files, label files, their values, samples."""
