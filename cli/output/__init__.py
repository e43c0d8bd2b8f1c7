"""Tables, progress and streams of the terminal."""
