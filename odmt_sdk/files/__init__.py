"""File access: reading files from untrusted sources, and crash-safe writing."""
