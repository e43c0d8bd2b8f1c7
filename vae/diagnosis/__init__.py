"""Why a run failed: what is measured on the failed model, and short reruns that change one thing each."""
