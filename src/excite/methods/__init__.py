"""One file per paper: build functions and the cards of its methods."""
