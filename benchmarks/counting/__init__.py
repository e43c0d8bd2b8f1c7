"""Measuring how fast whole datasets are counted, against what people write instead."""
