"""What a network decides by that it should not: evidence cut out and put elsewhere."""
