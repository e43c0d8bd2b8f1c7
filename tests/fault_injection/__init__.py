"""Drills: files damaged, processes killed and data edited, and what becomes of counts and cache."""
