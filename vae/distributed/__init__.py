"""Training by several processes with torch.distributed; a single process imports only `launch`."""
