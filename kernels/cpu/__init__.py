"""Backends for the CPU: eager PyTorch operators, and one compiled C++ pass."""
