"""What a run is, for classification and detection alike: directory, trainer, history, checkpoints, seeds, optimiser."""
