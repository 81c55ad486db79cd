"""Features on disk: a folder of safetensors and one JSON file, written in parts, read by rows."""
