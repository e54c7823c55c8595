"""Compiled kernels for CPUs: nobody outside this folder needs to know how they are made."""
