"""Classes of the published tasks, in the order of the label."""

CVD_CLASSES = ('non_CVD', 'CHD', 'stroke', 'HF')
# Of all ECGs: whoever is not admitted is a class of its own.
CVD_ALL_CLASSES = (*CVD_CLASSES, 'no_admission')
DEATH_CLASSES = ('survived', 'died')
