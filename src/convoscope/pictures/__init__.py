"""Pictures: files, arrays and tensors on one side, a network's input on the other."""
