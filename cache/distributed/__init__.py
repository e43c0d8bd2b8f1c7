"""Count of one dataset by the ranks of a job."""
