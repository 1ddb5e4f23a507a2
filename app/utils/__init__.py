"""The seam through which the sample uses mempressure."""
