"""Recording of operations at the choke point, and a reference interpreter of the result."""
