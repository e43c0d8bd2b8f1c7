"""Pictures, charts and the page of a run."""
