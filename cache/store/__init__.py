"""The cached counts file: cache key, change detection, atomic writes, and the scan behind them."""
