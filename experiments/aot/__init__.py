"""``python -m experiments.aot``: the train step compiled for machines that are not at hand."""
