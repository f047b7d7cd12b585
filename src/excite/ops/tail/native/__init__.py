"""The fused tail's passes in C, for CPUs: built on first use where there is a compiler, called through ctypes."""
