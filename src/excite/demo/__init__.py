"""The page to play with (`excite demo`, docs/demo.md): what a network sees, and what its attention does to that."""
