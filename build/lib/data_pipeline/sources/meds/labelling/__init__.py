"""What is predicted in a MEDS data set: task files, label files, their values, samples."""
