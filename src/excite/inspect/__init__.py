"""What is inside a network: which modules are attention, what shapes flow, what it costs."""
