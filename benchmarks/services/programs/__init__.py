"""What runs in the environments of the applications, and is imported by none of the benchmark."""
