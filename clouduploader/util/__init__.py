"""Files, processes, signals, clocks: what knows nothing of jobs or clouds."""
