"""Classes of the published tasks, in the order of the label."""

CVD_CLASSES = ('non_CVD', 'CHD', 'stroke', 'HF')
DEATH_CLASSES = ('survived', 'died')
