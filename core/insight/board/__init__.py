"""The board: a page that shows runs while they go on, served on this machine or as one file."""
