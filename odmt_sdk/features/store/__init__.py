"""Features on disk: a folder of safetensors shards with a JSON manifest, read row by row."""
