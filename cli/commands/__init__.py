"""The commands of `vaefit-cli`, one file each."""
