"""What a running program shows: progress lines and run logs."""
