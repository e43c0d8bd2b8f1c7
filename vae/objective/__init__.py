"""The objective (focal loss plus KL) and its checks before the first step."""
