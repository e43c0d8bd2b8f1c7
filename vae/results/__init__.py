"""Records of results, as `result.json` and `config.json` hold them."""
