"""One file per method: a build function and its card (`METHOD`)."""
